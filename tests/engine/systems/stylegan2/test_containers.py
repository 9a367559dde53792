"""The files in which StyleGAN2 weights are handed round, from their bytes to our tensors."""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from zellige.engine.checkpoint.foreign.content import Content
from zellige.engine.checkpoint.foreign.reading import read_content
from zellige.engine.systems.conversion import recognised

from ...checkpoint.foreign.written import nvidia_pickle, tensorflow_pickle
from .foreign_critics import CRITICS
from .foreign_layouts import LENGTH, PROGRAMS
from .textbook import State


def torch_file(tree: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def dense(state: State) -> State:
    return {key: tensor.contiguous() for key, tensor in state.items()}


def trained_by_rosinality(g: State, d: State, mean: torch.Tensor) -> bytes:
    other = PROGRAMS["rosinality"].make(9)
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    options = argparse.Namespace(size=16, latent=LENGTH)
    return torch_file({"g": other, "d": d, "g_ema": g, "g_optim": optimiser, "args": options, "ada_aug_p": 0.1})


def encoder_of_faces(g: State, d: State, mean: torch.Tensor) -> bytes:
    parts = {f"decoder.{key}": tensor for key, tensor in g.items()} | {"encoder.body.0.weight": torch.zeros(2, 2)}
    return torch_file({"state_dict": parts, "latent_avg": mean.expand(6, -1).clone(), "opts": {"output_size": 16}})


def trained_by_genforce(g: State, d: State, mean: torch.Tensor) -> bytes:
    other = PROGRAMS["genforce"].make(9)
    models = {"generator": other, "discriminator": d, "generator_smooth": g}
    named = {name: {f"module.{key}": t for key, t in state.items()} for name, state in models.items()}
    return torch_file({"models": named, "running_metadata": {"iter": 5}, "learning_rates": {"generator": {}}})


def trained_by_nvidia(g: State, d: State, mean: torch.Tensor) -> bytes:
    return nvidia_pickle({"G": PROGRAMS["NVIDIA"].make(9), "D": d, "G_ema": g}, {"synthesis.b4.architecture": "skip"})


def trained_by_tensorflow(g: State, d: State, mean: torch.Tensor) -> bytes:
    return tensorflow_pickle(PROGRAMS["TensorFlow"].make(9), dense(d), g)


Write = Callable[[State, State, torch.Tensor], bytes]
FILES: dict[str, tuple[str, Write, str, str, str]] = {  # layout, writer, container, generator, discriminator
    "rosinality, trained": ("rosinality", trained_by_rosinality, "torch file", "g_ema", "d"),
    "rosinality, converted": (
        "rosinality", lambda g, d, mean: torch_file({"g_ema": g, "latent_avg": mean}), "torch file", "g_ema", ""),
    "pSp and e4e": ("rosinality", encoder_of_faces, "torch file", "state_dict.decoder", ""),
    "genforce, trained": (
        "genforce", trained_by_genforce, "torch file", "models.generator_smooth.module", "models.discriminator.module"),
    "NVIDIA": ("NVIDIA", trained_by_nvidia, "pickle", "G_ema", "D"),
    "NVIDIA, the average alone": ("NVIDIA", lambda g, d, mean: nvidia_pickle({"G_ema": g}, {}), "pickle", "G_ema", ""),
    "NVIDIA's tensors alone": ("NVIDIA", lambda g, d, mean: torch_file(g), "torch file", "plain", ""),
    "the same as safetensors": (
        "NVIDIA", lambda g, d, mean: safetensors.torch.save(dense(g)), "safetensors", "plain", ""),
    "TensorFlow": ("TensorFlow", trained_by_tensorflow, "pickle", "Gs", "D"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_and_the_averaged_network_is_taken(name: str) -> None:
    layout, write, container, generator, critic = FILES[name]
    state, mean = PROGRAMS[layout].make(0), torch.arange(float(LENGTH))
    if PROGRAMS[layout].mean in state:
        state[PROGRAMS[layout].mean] = mean
    raw = write(state, CRITICS[layout].make(3), mean)
    found, tensors, values = read_content(io.BytesIO(raw), len(raw))
    assert found == container
    made = recognised(Content(Path("x"), found, "", tensors, values), samples=8)[1]
    assert (made.source["layout"], made.source["network"]) == (layout, generator)
    assert made.source["discriminator"] == (critic or "none in the file")
    alone = Content(Path("x"), "", "", state, {})
    wanted = recognised(alone, samples=8)[1].tensors
    mine = {key: tensor for key, tensor in made.tensors.items() if key.startswith("generator.")}
    assert mine.keys() == wanted.keys()
    if name != "rosinality, trained":
        assert made.source["w_avg"] == "stored" and torch.equal(mine.pop("generator.w_avg"), mean)
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in mine.items())
