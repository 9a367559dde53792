"""Files of any content are opened, or refused in one sentence that names them."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from zellige.engine.files import faults as files  # noqa: E402
from zellige.engine.onnx import faults  # noqa: E402
from zellige.engine.onnx import file as onnx_file  # noqa: E402
from zellige.engine.onnx.file import check_model_file, open_model  # noqa: E402
from zellige.errors import CheckpointError, MissingExtraError  # noqa: E402

from .onnx_models import added, branch, call, function, model, node, numbers, tensor, value  # noqa: E402


def rich() -> Any:
    """A model with something of everything."""
    choice = node("If", ["c"], ["z"], then_branch=branch(call("F")), else_branch=branch(node("Relu", ["x"], ["y"])))
    made = model(
        node("Constant", [], ["one"], value=tensor("", sides=(1,), float_data=[1.0])), choice,
        node("Add", ["z", "one"], ["t"]), node("Reshape", ["t", "s"], ["u"]), node("MatMul", ["u", "w"], ["y"]),
        weights=[tensor(sides=(4, 2), raw_data=bytes(32)), numbers("s", -1, 4)],
        inputs=[value("x"), value("c", (), onnx.TensorProto.BOOL)],
        functions=[function("F", node("Abs", ["x"], ["y"]))],
    )  # fmt: skip
    made.metadata_props.add(key="zellige.format", value="1")
    return made


RICH = rich().SerializeToString()


def sentence(data: bytes | Path) -> str | None:
    """Why it is refused, or None; anything but our own exception comes through."""
    try:
        open_model(data)
    except CheckpointError as error:
        assert type(error) is not CheckpointError
        name = "the ONNX model" if isinstance(data, bytes) else str(data)
        assert str(error).startswith(f"{name} cannot be opened as an ONNX model: ") and "\n" not in str(error)
        return str(error)
    return None


def test_a_model_is_opened_from_its_path_and_from_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(RICH)
    for source in (path, str(path), RICH):
        assert open_model(source) == rich()
        assert check_model_file(source) == RICH


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path / "none" / "m.onnx"):
        with pytest.raises(
            files.MissingFileError, match=r"m?\.onnx cannot .* it does not exist; name a .onnx file that do"
        ):
            open_model(path)


def test_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path, kind in ((tmp_path, "folder"), (tmp_path / "pipe.onnx", "pipe"), (Path("/dev/zero"), "device")):
        with pytest.raises(
            files.NotAFileError, match=f"^{path} cannot .* it is a {kind} and not a regular file; name a .onnx file$"
        ):
            open_model(path)


@pytest.mark.parametrize(
    ("fault", "content", "clue"),
    [
        (files.EngineFileError, b"ptrt" + bytes(60), "a TensorRT engine"),
        (files.PointerFileError, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "git lfs pull"),
        (files.WebPageError, b"<!doctype html>\n", "/resolve/"),
        (files.OtherFormatError, b"\x80\x02" + bytes(6) + b'{"a":', "a safetensors file; give it a name that ends"),
        (files.PickleRefusedError, b"PK\x03\x04" + bytes(40), "can run code"),
        (files.CompressedFileError, b"\x1f\x8b\x08" + bytes(40), "unpack it"),
    ],
)  # fmt: skip
def test_files_of_other_formats_are_named(tmp_path: Path, fault: Any, content: bytes, clue: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(fault, match=rf"m.onnx cannot be opened as an ONNX model: it is .*{clue}"):
        open_model(tmp_path / "m.onnx")


def test_names_that_no_file_has_are_refused(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(files.UnreadableFileError, match="it cannot be read"):
            open_model(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(RICH)
    path.chmod(0)
    with pytest.raises(files.UnreadableFileError, match=r"Permission denied.*; check its name and permissions"):
        open_model(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.touch()
    with pytest.raises(
        files.EmptyFileError, match=f"^{path} cannot be opened as an ONNX model: it is empty; copy or down"
    ):
        open_model(path)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**42)  # sparse: no disk has it
    with pytest.raises(
        faults.FileSizeError, match=f"it has {2**42} bytes and at most 2147483647 can be read; save it with"
    ):
        open_model(path)


def test_bytes_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_BYTES", len(RICH) - 1)
    with pytest.raises(faults.FileSizeError, match="at most"):
        open_model(RICH)


def test_a_model_without_a_graph_is_refused() -> None:
    made = model()
    made.ClearField("graph")
    with pytest.raises(faults.NoGraphError, match="it has no graph; copy or download the file again"):
        open_model(made.SerializeToString())


def test_a_graph_without_outputs_is_refused() -> None:
    with pytest.raises(faults.NoGraphError, match="its graph has no outputs"):
        open_model(model(outputs=[]).SerializeToString())


def test_graphs_for_training_are_refused() -> None:
    made = model()
    made.training_info.add().algorithm.name = "step"
    with pytest.raises(faults.InvalidModelError, match="it has graphs for training; export it for inference"):
        open_model(made.SerializeToString())


def test_a_message_of_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot be opened as an ONNX model"):
        open_model(rich().graph.SerializeToString())


def test_a_truncated_model_is_refused_wherever_it_ends() -> None:
    """All that may be missing from what passes is what comes behind the operator sets: metadata."""
    for end in range(len(RICH)):
        if sentence(RICH[:end]) is None:
            rest = onnx.ModelProto.FromString(RICH[:end])
            assert rest.graph == rich().graph and rest.functions == rich().functions, end


def test_a_plain_model_is_refused_wherever_its_graph_is_cut() -> None:
    data = added(tensor(raw_data=bytes(16))).SerializeToString()
    whole = len(data) - len(b"\x42\x07\x0a\x03own\x10\x01")  # an operator set that nothing uses
    assert [end for end in range(whole) if sentence(data[:end]) is None] == []


def test_two_models_one_behind_the_other_are_refused() -> None:
    assert sentence(RICH + RICH) is not None


@given(st.binary(max_size=300))
@example(b"\x89PNG\r\n\x1a\n")
@example(b"PK\x03\x04")
@example(b"\x80\x02}q\x00.")
def test_random_bytes_are_refused(data: bytes) -> None:
    assert sentence(data) is not None


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_model_raises_nothing_but_our_errors(changes: list[tuple[int, int]]) -> None:
    data = bytearray(RICH)
    for place, byte in changes:
        data[place] = byte
    sentence(bytes(data))


@settings(max_examples=300)
@given(st.integers(0, len(RICH)), st.integers(0, 40), st.binary(max_size=20))
def test_a_model_with_pieces_lost_or_put_in_raises_nothing_but_our_errors(at: int, lost: int, more: bytes) -> None:
    sentence(RICH[:at] + more + RICH[at + lost :])


NAMES = st.text(max_size=4) | st.sampled_from(["x", "y", "w", "s", "F", "\n", "\x1b[31m", "'"])


@given(
    st.lists(
        st.tuples(st.sampled_from(["Relu", "Add", "Concat", "Reshape", "If", "F", "Tile"]), NAMES, NAMES), max_size=4
    ),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    st.integers(0, 40),
    NAMES,
)
def test_a_model_of_random_parts_raises_nothing_but_our_errors(
    nodes: list[tuple[str, str, str]], sides: list[int], dtype: int, name: str
) -> None:
    made = model(
        *(node(kind, ["x", source], [result], domain="own" if kind == "F" else "") for kind, source, result in nodes),
        weights=[tensor(name, dtype, sides, raw_data=b"abcd")], inputs=[value("x"), value(name, sides)],
        functions=[function("F", node("Relu", ["x"], [name]))],
    )  # fmt: skip
    sentence(made.SerializeToString())


def test_a_name_that_breaks_the_line_does_not_break_the_sentence() -> None:
    assert sentence(added(tensor("a\nb\x1b[31m")).SerializeToString()) is not None


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        MissingExtraError, match=r"^checking ONNX models needs the package 'onnx'; .*zellige\[export\]'$"
    ):
        open_model(RICH)
