"""The text format of protobuf, as far as a model configuration of the server needs it."""

from collections.abc import Sequence

__all__ = ["Entry", "Word", "text_format"]


class Word(str):
    """A value of an enumeration, which is written without quotes."""


# A tuple is a list of numbers; a list is a message, in which a field may come several times.
Value = int | str | tuple[int, ...] | list["Entry"]
Entry = tuple[str, "Value"]


def text_format(entries: Sequence[Entry], indent: str = "") -> str:
    """Return the entries of a message in the text format of protobuf, one field a line.

    Source: Protocol Buffers, text format (https://protobuf.dev/reference/protobuf/textformat-spec/).
    """
    return "".join(_field(key, value, indent) for key, value in entries)


def _field(key: str, value: Value, indent: str) -> str:
    if isinstance(value, list):
        return f"{indent}{key} {{\n{text_format(value, indent + '  ')}{indent}}}\n"
    if isinstance(value, tuple):
        return f"{indent}{key}: [{', '.join(map(str, value))}]\n"
    quoted = isinstance(value, str) and not isinstance(value, Word)
    return f"{indent}{key}: {_quoted(str(value)) if quoted else value}\n"


def _quoted(text: str) -> str:
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'
