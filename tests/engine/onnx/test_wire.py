"""Bytes that are no whole ONNX model never reach a parser."""

import re

import pytest

onnx = pytest.importorskip("onnx")

from zellige.engine.files.faults import TruncatedFileError  # noqa: E402
from zellige.engine.onnx import wire as onnx_wire  # noqa: E402
from zellige.engine.onnx.faults import GraphSizeError, NestingError, NotOnnxError  # noqa: E402
from zellige.engine.onnx.wire import check_wire  # noqa: E402

from .onnx_models import branch, model, node, numbers, tensor, value  # noqa: E402

SCHEMA = onnx.ModelProto.DESCRIPTOR
GRAPH = b"\x3a"  # the tag of a model's graph: field 7, with a length


def check(data: bytes) -> None:
    check_wire(data, SCHEMA, "m.onnx")


def test_what_onnx_writes_passes() -> None:
    deep = node("If", ["c"], ["y"], then_branch=branch(node("Relu", ["x"], ["y"])), else_branch=branch())
    weights = [tensor(raw_data=b"\x80" * 16), numbers("s", 1, -1, 2**40), tensor("f", float_data=[0.5] * 4)]
    check(model(deep, weights=weights, inputs=[value("x"), value("c", [], onnx.TensorProto.BOOL)]).SerializeToString())


def test_packed_and_single_numbers_are_both_read() -> None:
    dims_one_by_one, dims_packed = b"\x08\x02\x08\x03", b"\x0a\x02\x02\x03"
    for dims in (dims_one_by_one, dims_packed):
        assert list(onnx.TensorProto.FromString(dims).dims) == [2, 3]
        check_wire(dims, onnx.TensorProto.DESCRIPTOR, "m.onnx")


@pytest.mark.parametrize(
    ("data", "fault", "reason"),
    [
        (
            GRAPH + b"\x7f",
            TruncatedFileError,
            "it ends after 2 bytes where its field 'graph' at byte 1 is 127 bytes long",
        ),
        (b"\x08", TruncatedFileError, "it ends after 1 bytes where a number that began at byte 1 goes on"),
        (b"\x08\x80", TruncatedFileError, "it ends after 2 bytes where a number that began at byte 1 goes on"),
        (b"\x08" + b"\xff" * 11, NotOnnxError, "byte 1 begins a number of more than 64 bits"),
        (
            GRAPH + b"\x03\x0a\x7f\x00" + b"\x00" * 200,
            NotOnnxError,
            "its field 'node' at byte 3 is 127 bytes long, beyond",
        ),
        (b"\x12\x02\xff\xfe", NotOnnxError, "its field 'producer_name' at byte 1 is not UTF-8"),
        (b"\x0b", NotOnnxError, "byte 0 begins no field of a ModelProto"),
        (b"\x7a\x00", NotOnnxError, "byte 0 begins no field of a ModelProto"),
        (b"\x00\x00", NotOnnxError, "byte 0 begins no field of a ModelProto"),
        (b"\x0d\x00\x00\x00\x00", NotOnnxError, "byte 0 begins no field of a ModelProto"),
        (b"\x89PNG\r\n\x1a\n", NotOnnxError, "byte 0 begins no field of a ModelProto"),
    ],
)
def test_a_fault_is_named_with_its_place(data: bytes, fault: type[Exception], reason: str) -> None:
    sentence = re.escape(f"m.onnx cannot be opened as an ONNX model: {reason}")
    with pytest.raises(fault, match=f"^{sentence}.*copy or download the file again$"):
        check(data)


def test_messages_nested_deeper_than_parsers_go_are_refused() -> None:
    data = b""
    for _ in range(100):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # an attribute's graph, a node's attribute, a graph's node
            length, data = len(data), data
            sides = bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14])
            data = tag + sides + data
    with pytest.raises(NestingError, match="^m.onnx .* lie more than 48 deep at byte .*, which is about 16 subgraphs"):
        check(GRAPH + bytes([len(data) & 127 | 128, len(data) >> 7 & 127 | 128, len(data) >> 14]) + data)


def test_a_file_of_empty_messages_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_wire, "MAX_MESSAGES", 1000)
    nodes = b"\x0a\x00" * 1001
    with pytest.raises(
        GraphSizeError, match="^m.onnx .* more than 2000000 fields or 1000 messages; keep its data in raw"
    ):
        check(GRAPH + bytes([len(nodes) & 127 | 128, len(nodes) >> 7]) + nodes)


def test_more_fields_than_a_network_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_wire, "MAX_FIELDS", 1000)
    with pytest.raises(GraphSizeError, match="more than 1000 fields"):
        check(b"\x08\x01" * 1001)
