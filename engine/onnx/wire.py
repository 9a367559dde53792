"""Walks the bytes of a protobuf along its schema before a parser allocates anything for them.

A parser may turn two bytes of the file into a message of a hundred bytes or more, and it gives up on deep nesting
without saying where. This walk accounts for every byte: each field is in the schema, ends inside of its message, and is
counted.
"""

from functools import cache
from typing import Any, NamedTuple, NoReturn

from ..files.faults import TruncatedFileError
from ..files.hostile import COPY_AGAIN
from . import faults
from .faults import refuse

__all__ = ["MAX_DEPTH", "MAX_FIELDS", "MAX_MESSAGES", "check_wire"]

MAX_DEPTH = 48  # nested messages; a subgraph lies three deeper than its graph, and parsers stop at 100
MAX_MESSAGES = 500_000  # about 200 bytes each once they are parsed
MAX_FIELDS = 2_000_000  # about 1 us each in this walk

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_WIDTHS = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


class _Field(NamedTuple):
    name: str
    kinds: frozenset[int]  # the wire types that the field may have
    message: Any  # the descriptor if the field is a message, else None
    text: bool


def check_wire(data: bytes, schema: Any, what: str) -> None:
    """Check that bytes are a protobuf of a schema, whole and of bounded size and depth.

    Args:
        data: the bytes to check.
        schema: descriptor of the message, such as `onnx.ModelProto.DESCRIPTOR`.
        what: the name of the bytes in errors.
    Raises:
        TruncatedFileError: the bytes end inside of a field.
        NotOnnxError: a byte begins no field of the schema, or a field is damaged.
        NestingError, GraphSizeError: the messages are too deep or too many.
    Source: Protocol Buffers, encoding (https://protobuf.dev/programming-guides/encoding/).
    """
    _Walk(data, what).message(0, len(data), schema, 0)


class _Walk:
    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.fields, self.messages = data, what, 0, 0

    def message(self, at: int, end: int, schema: Any, depth: int) -> None:
        """Walk the message of `schema` that is data[at:end]."""
        self.messages += 1
        if depth > MAX_DEPTH:
            self._refuse(
                faults.NestingError,
                f"its messages lie more than {MAX_DEPTH} deep at byte {at}, which is about {MAX_DEPTH // 3} subgraphs; "
                "export it with fewer in each other",
            )
        known = _fields(schema)
        while at < end:
            began, self.fields = at, self.fields + 1
            if self.fields > MAX_FIELDS or self.messages > MAX_MESSAGES:
                self._refuse(
                    faults.GraphSizeError,
                    f"it has more than {MAX_FIELDS} fields or {MAX_MESSAGES} messages; keep its data in raw_data",
                )
            tag, at = self._varint(at, end)
            field = known.get(tag >> 3)
            if field is None or tag & 7 not in field.kinds:
                self._refuse(faults.NotOnnxError, f"byte {began} begins no field of a {schema.name}; {COPY_AGAIN}")
            at = self._value(at, end, tag & 7, field, depth)

    def _value(self, at: int, end: int, kind: int, field: _Field, depth: int) -> int:
        """Walk a field's value and return where the next field begins."""
        if kind == _VARINT:
            return self._varint(at, end)[1]
        began = at
        if kind == _LENGTH:
            length, at = self._varint(at, end)
        else:
            length = _WIDTHS[kind]
        if at + length > end:
            self._ends(at + length, f"its field {field.name!r} at byte {began} is {length} bytes long")
        if field.message is not None:
            self.message(at, at + length, field.message, depth + 1)
        elif field.text:
            try:
                self.data[at : at + length].decode()
            except UnicodeDecodeError:
                self._refuse(
                    faults.NotOnnxError, f"its field {field.name!r} at byte {began} is not UTF-8; {COPY_AGAIN}"
                )
        return at + length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                self._ends(at + 1, f"a number that began at byte {at - shift // 7} goes on")
            byte = self.data[at]
            value, at = value | (byte & 127) << shift, at + 1
            if byte < 128:
                return value, at
        self._refuse(faults.NotOnnxError, f"byte {at - 10} begins a number of more than 64 bits; {COPY_AGAIN}")

    def _ends(self, needed: int, reason: str) -> NoReturn:
        size = len(self.data)
        if needed > size:
            self._refuse(TruncatedFileError, f"it ends after {size} bytes where {reason}; {COPY_AGAIN}")
        self._refuse(faults.NotOnnxError, f"{reason}, beyond the message around it; {COPY_AGAIN}")

    def _refuse(self, fault: Any, reason: str) -> NoReturn:
        refuse(fault, self.what, reason)


@cache
def _fields(schema: Any) -> dict[int, _Field]:
    known = {}
    for field in schema.fields:
        if field.type in (field.TYPE_MESSAGE, field.TYPE_STRING, field.TYPE_BYTES):
            kinds = {_LENGTH}
        else:
            kinds = {{field.TYPE_DOUBLE: _EIGHT_BYTES, field.TYPE_FLOAT: _FOUR_BYTES}.get(field.type, _VARINT)}
            kinds |= {_LENGTH} if field.is_repeated else set()  # packed
        known[field.number] = _Field(field.name, frozenset(kinds), field.message_type, field.type == field.TYPE_STRING)
    return known
