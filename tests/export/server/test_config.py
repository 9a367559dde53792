import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.export.server.config import Word, text_format

text_parser = pytest.importorskip("google.protobuf.text_format")
ModelConfig = pytest.importorskip("tritonclient.grpc.model_config_pb2").ModelConfig


@given(st.text())
def test_any_text_is_read_back(text: str) -> None:
    written = text_format([("parameters", [("key", "k"), ("value", [("string_value", text)])])])
    assert written.isascii() and text_parser.Parse(written, ModelConfig()).parameters["k"].string_value == text


def test_numbers_lists_words_and_messages_have_their_forms() -> None:
    entries = [("name", "a"), ("max_batch_size", 2), ("input", [("dims", (3, -1)), ("data_type", Word("TYPE_FP32"))])]
    lines = ['name: "a"', "max_batch_size: 2", "input {", "  dims: [3, -1]", "  data_type: TYPE_FP32", "}", ""]
    assert text_format(entries) == "\n".join(lines)  # type: ignore[arg-type]
