"""A file says what it is, and nothing that it says is believed unseen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")

from zellige.engine.onnx.metadata import Metadata  # noqa: E402
from zellige.errors import CheckpointError, UnknownModelError  # noqa: E402
from zellige.version import __version__  # noqa: E402

SAID = Metadata(
    system="onegan", task="generate", config={"latent": 64, "classes": [3, 9]}, precision="fp16", output="image",
    height=64, width=128, model="emoji", flavour="fused", licence="CC0-1.0",
)  # fmt: skip
PATH = Path("a.onnx")


def model(said: Metadata = SAID) -> Any:
    made = onnx.ModelProto()
    said.write(made)
    return made


def test_what_is_written_is_read() -> None:
    assert Metadata.read(model(), PATH) == SAID


def test_keys_stand_in_order_and_values_as_they_always_did() -> None:
    made = model()
    assert [(entry.key, entry.value) for entry in made.metadata_props] == [
        ("zellige.config", '{"classes": [3, 9], "latent": 64}'), ("zellige.flavour", "fused"), ("zellige.format", "1"),
        ("zellige.height", "64"), ("zellige.licence", "CC0-1.0"), ("zellige.model", "emoji"),
        ("zellige.output", "image"), ("zellige.precision", "fp16"), ("zellige.system", "onegan"),
        ("zellige.task", "generate"), ("zellige.width", "128"),
    ]  # fmt: skip
    assert (made.producer_name, made.producer_version, made.domain) == ("zellige", __version__, "zellige")


def test_other_programs_keys_do_not_matter() -> None:
    made = model()
    made.metadata_props.add(key="author", value="x" * 1000)
    assert Metadata.read(made, PATH) == SAID


def edited(**said: str | None) -> Any:
    made = model()
    kept = {entry.key: entry.value for entry in made.metadata_props} | {f"zellige.{k}": v for k, v in said.items()}
    del made.metadata_props[:]
    for key, value in kept.items():
        if value is not None:
            made.metadata_props.add(key=key, value=value)
    return made


@pytest.mark.parametrize("key", ["model", "flavour", "licence"])
def test_some_keys_may_be_missing(key: str) -> None:
    assert Metadata.read(edited(**{key: None}), PATH) == replace(SAID, **{key: "unknown"})


@pytest.mark.parametrize("key", ["system", "task", "config", "precision", "output", "height", "width"])
def test_a_file_that_does_not_say_what_it_is_is_refused(key: str) -> None:
    with pytest.raises(UnknownModelError, match=r"^a.onnx does not say what it is, so it was not written by `zellige "):
        Metadata.read(edited(**{key: None}), PATH)


@pytest.mark.parametrize(
    ("key", "value", "clue"),
    [
        ("config", "[1]", "no JSON object"), ("config", "{", "is not JSON"), ("config", '{"a": NaN}', "not finite"),
        ("config", '{"a":' * 10**5, "nested deeper"), ("config", '{"a": 1, "a": 2}', "twice"),
        ("width", "-1", "no number of pixels"), ("width", "0", "no number of pixels"),
        ("height", "9" * 199, "no number of pixels"), ("height", "\u0663", "no number of pixels"),
        ("system", "", "no name"), ("task", "x" * 201, "no name"), ("model", "a\nb", "no name"),
        ("licence", "\x1b[31m", "no name"), ("format", "2", "update zellige"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(key: str, value: str, clue: str) -> None:
    with pytest.raises(CheckpointError, match=r"^a.onnx[^\n]*" + clue) as caught:
        Metadata.read(edited(**{key: value}), PATH)
    assert len(str(caught.value)) < 400
