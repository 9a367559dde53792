"""Files as other programs write them; their classes exist here for as long as they are written."""

import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


@contextmanager
def modules(members: Mapping[str, Any]) -> Iterator[None]:
    """Classes and functions of other programs, by their full names."""
    kept = dict(sys.modules)
    for full, member in members.items():
        *path, member.__qualname__ = full.split(".")
        member.__module__ = ".".join(path)
        for length in range(1, len(path) + 1):
            sys.modules.setdefault(name := ".".join(path[:length]), ModuleType(name))
        setattr(sys.modules[member.__module__], member.__qualname__, member)
    try:
        yield
    finally:
        for name in sys.modules.keys() - kept.keys():
            del sys.modules[name]


def rebuild(meta: Any) -> Any:
    raise AssertionError("nobody calls this")


class EasyDict(dict[str, Any]):
    pass


class Persistent:
    """A module of NVIDIA's PyTorch code, made of a state dict."""

    def __init__(self, state: State, buffers: tuple[str, ...], attributes: Mapping[str, Any], place: str = "") -> None:
        parts = {key.split(".")[0]: None for key in state if "." in key}
        own = {key: tensor for key, tensor in state.items() if "." not in key}
        children = {
            part: Persistent(
                {key.removeprefix(f"{part}."): t for key, t in state.items() if key.startswith(f"{part}.")},
                buffers, attributes, f"{place}{part}.",
            )
            for part in parts
        }  # fmt: skip
        mine = {
            key.removeprefix(place): value for key, value in attributes.items() if key.rpartition(".")[0] == place[:-1]
        }
        self.meta = EasyDict(
            type="class", version=6, module_src="raise SystemExit('this source is never run')", class_name="Generator",
            state={
                "training": False,
                "_parameters": OrderedDict((k, nn.Parameter(t)) for k, t in own.items() if k not in buffers),
                "_buffers": OrderedDict((k, t) for k, t in own.items() if k in buffers),
                "_non_persistent_buffers_set": set(),
                "_modules": OrderedDict(children),
                "weight_gain": np.float64(0.5),
                **mine,
            },
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (self.meta,)


def nvidia_pickle(networks: Mapping[str, State], attributes: Mapping[str, Any], protocol: int = 4) -> bytes:
    """A pickle of networks by name; attributes of modules have names such as `synthesis.b8.conv1.conv_clamp`."""
    buffers = ("w_avg", "noise_const", "resample_filter")
    with modules({"torch_utils.persistence._reconstruct_persistent_obj": rebuild, "dnnlib.util.EasyDict": EasyDict}):
        made: dict[str, Any] = {name: Persistent(state, buffers, attributes) for name, state in networks.items()}
        return pickle.dumps(made | {"augment_pipe": None, "training_set_kwargs": EasyDict(path="x")}, protocol)


class Network:
    """A network of NVIDIA's TensorFlow code."""

    def __init__(self, state: State) -> None:
        parts = {key.split("/")[0] for key in state if key.startswith(("mapping/", "synthesis/"))}
        own = {key: t for key, t in state.items() if key.split("/")[0] not in parts}
        self.inner = {
            "version": 4,
            "name": "G",
            "static_kwargs": EasyDict(resolution=16, architecture="skip"),
            "components": EasyDict({
                part: Network({k.removeprefix(f"{part}/"): t for k, t in state.items() if k.startswith(f"{part}/")})
                for part in sorted(parts)
            }),
            "build_module_src": "raise SystemExit('this source is never run')\n" * 40,
            "variables": [(key, tensor.numpy()) for key, tensor in own.items()],
        }  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return self.inner


def tensorflow_pickle(*networks: State, protocol: int = 3) -> bytes:
    """A pickle of G, D and Gs."""
    with modules({"dnnlib.tflib.network.Network": Network, "dnnlib.util.EasyDict": EasyDict}):
        return pickle.dumps(tuple(Network(state) for state in networks), protocol)


class Config:
    """A configuration of GAN zoo."""

    def __init__(self) -> None:
        self.alpha, self.name = 0.25, "celeba"


@contextmanager
def zoo_config() -> Iterator[Any]:
    """An object as GAN zoo keeps it beside its networks."""
    with modules({"models.utils.config.BaseConfig": Config}):
        yield Config()


def example(*shape: int) -> Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)
