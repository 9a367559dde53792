from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.engine.library import load

from ..engine.checkpoint.foreign.written import nvidia_pickle
from ..engine.systems.stylegan2.foreign_critics import CRITICS
from ..engine.systems.stylegan2.foreign_layouts import PROGRAMS
from .command import Run, one_object, refused


@pytest.fixture
def pickled(folder: Path) -> Path:
    """A pickle of NVIDIA's, with a generator, its average without a mean, and the discriminator."""
    state = PROGRAMS["NVIDIA"].make(0)
    convs = [key for key in state if key.endswith("noise_strength")]
    clamps = {key.replace("noise_strength", "conv_clamp"): 256 for key in convs}
    del state["mapping.w_avg"]
    networks = {"G": PROGRAMS["NVIDIA"].make(1), "D": CRITICS["NVIDIA"].make(2), "G_ema": state}
    Path("network.pkl").write_bytes(nvidia_pickle(networks, clamps))
    return Path("network.pkl")


def test_a_converted_model_is_loaded_and_says_where_it_comes_from(run: Run, pickled: Path) -> None:
    words = ("convert", pickled, "--out", "cats.safetensors", "--seed", "3", "--licence", "CC BY-NC 4.0")
    report = one_object(run(*words, "--json"))
    mean = "estimated from 100000 latents of seed 3"
    source = {"file": "network.pkl", "container": "pickle", "layout": "NVIDIA", "network": "G_ema", "noise": "stored",
              "w_avg": mean, "discriminator": "D"}  # fmt: skip
    assert {key: report[key] for key in source} == source
    assert report["system"] == "stylegan2" and report["channels"] == [6, 5, 4] and report["clamp"] == 256
    header = read_header("cats.safetensors")
    assert header.details["licence"] == report["licence"] == "CC BY-NC 4.0"
    assert header.details["source"] == source | {"sha256": report["sha256"]} and header.config["raw_epsilon"]
    tensors = read_tensors(header)
    assert report["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert report["bytes"] == Path("cats.safetensors").stat().st_size
    wanted = PROGRAMS["NVIDIA"].picture(PROGRAMS["NVIDIA"].make(0), z := torch.randn(2, 7))
    made = load(Path("cats.safetensors"), "cpu", "fp32", rewrite=False).images(z)
    assert (made - wanted.clamp(-1, 1)).abs().max() <= 1e-4


REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "no file": (("gone.pt", "--out", "new.safetensors"), "gone.pt does not exist; name a file of weights that does"),
    "a folder": (("pictures", "--out", "new.safetensors"), "it is a folder and not a regular file"),
    "another ending": (("evil.pt", "--out", "new.pt"), "checkpoints end in .safetensors; change the name"),
    "no folder": (("evil.pt", "--out", "gone/new.safetensors"), "there is no folder"),
    "an older model": (("evil.pt", "--out", "birds.safetensors"), "exists already; choose another name, or replace it"),
    "the file itself": (
        ("birds.safetensors", "--out", "birds.safetensors", "--overwrite"), "which is also the file; give --out"),
    "a seed below 0": (("evil.pt", "--out", "new.safetensors", "--seed", "-1"), "--seed must be"),
    "a pickle that acts": (("evil.pt", "--out", "new.safetensors"), "which is not on the closed list of names"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    words, part = REFUSED[case]
    refused(run, ("convert", *words), part)
