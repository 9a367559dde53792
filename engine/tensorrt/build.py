"""Builds an engine from an ONNX model, with TensorRT or TensorRT-RTX; every failure becomes a sentence."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from zellige.errors import CheckpointError, DeviceError

from .driver import Device, devices
from .flavours import FLAVOURS, Flavour, FlavourName, flavour_for
from .graph import DTYPES, Graph, Profile, Value, check_profiles, read_graph
from .messages import kept_log, parse_fault, plain

__all__ = ["EngineFile", "Profile", "build_engine", "checked_targets", "profiles_of", "way_to_build"]

_PURPOSE = "building TensorRT engines"


@dataclass(frozen=True)
class EngineFile:
    """An engine as bytes, with a report of its build.

    Attributes:
        content: the bytes of the engine's file; only the flavour and version that wrote them load them.
        report: JSON values: `flavour`, `library`, `version`, `targets`, `device`, `profiles`, `bytes`, `seconds`,
            `inputs` and `outputs` as `{"name", "dtype", "shape"}`, and `metadata` of the ONNX model.
    """

    content: bytes
    report: dict[str, Any]


def build_engine(
    model: Path | bytes,
    *,
    flavour: FlavourName | None = None,
    targets: Sequence[str] = (),
    profile: Profile | Sequence[Profile],
) -> EngineFile:
    """Build an engine from an ONNX model.

    The engine computes in the model's types, and TF32 is off. TensorRT-RTX needs no GPU. It makes the same bytes every
    time for profiles of one batch each, such as 8,8,8. For a range of batches of a large graph each build numbers and
    places temporaries differently, in a file of the same size. Full TensorRT builds for the GPU at hand, and chooses
    kernels by measurement.

    Args:
        model: the path or the bytes of a .onnx file with inputs [N, ...]; N may be any size, other sides are fixed.
        flavour: "rtx", "full", or None for the installed one that fits.
        targets: GPUs to build for, such as "sm_86", with TensorRT-RTX only; without targets it builds for all GPUs that
            have bfloat16.
        profile: the least, usual and largest batch; or several such profiles, each tuned for its usual batch.
    Raises:
        MissingExtraError: the flavour, or onnx, is not installed.
        DeviceError: there is no such flavour or target, or no GPU although the flavour needs one.
        SizeError: a profile is not a least, usual and largest batch.
        CheckpointError: the model cannot be read or built; the message names the node if it is known.
    """
    way = way_to_build(flavour, targets)
    graph = read_graph(model, way.flavour)
    profiles = profiles_of(profile)
    check_profiles(graph, profiles)
    if "sm_75" in way.targets and graph.bfloat16:
        raise DeviceError(
            f"{graph.what} computes in bfloat16, which sm_75 does not have; leave sm_75 out, or export it in fp16"
        )
    began = time.perf_counter()
    content, inputs, outputs = _built(way.library, way.flavour, graph, way.targets, profiles)
    device = way.device
    return EngineFile(
        content,
        {
            "flavour": way.flavour.name, "library": way.flavour.module, "version": way.library.__version__,
            "targets": list(way.targets) if device is None else [device.capability],
            "device": None if device is None else device.name,
            "profiles": [list(one) for one in profiles], "bytes": len(content),
            "seconds": time.perf_counter() - began, "inputs": [value.row() for value in inputs],
            "outputs": [value.row() for value in outputs], "metadata": graph.metadata,
        },
    )  # fmt: skip


@dataclass(frozen=True)
class WayToBuild:
    """The library that builds, and the GPUs that it builds for.

    Attributes:
        flavour: the flavour of TensorRT.
        library: the flavour's module.
        targets: the GPUs to build for; empty if the build is for the GPU at hand.
        device: the GPU at hand, or None if the build is for targets.
    """

    flavour: Flavour
    library: Any
    targets: tuple[str, ...]
    device: Device | None


def way_to_build(flavour: FlavourName | None, targets: Sequence[str] = ()) -> WayToBuild:
    """The library and GPUs that `build_engine` takes for these arguments; an impossible choice is refused.

    Args:
        flavour, targets: as in `build_engine`.
    Raises:
        MissingExtraError, DeviceError: as in `build_engine`.
    """
    chosen = flavour_for(flavour, bool(targets), _PURPOSE)
    wanted, library = checked_targets(chosen, targets), chosen.library(_PURPOSE)
    if chosen.targets:
        return WayToBuild(chosen, library, wanted, None)
    present = devices()
    if not present:
        raise DeviceError(
            f"{chosen.title} builds for the GPU at hand, and there is no CUDA device here; build where it will run, or "
            f"take the flavour 'rtx', which builds for {', '.join(FLAVOURS['rtx'].targets)} without one"
        )
    return WayToBuild(chosen, library, wanted, present[0])


def profiles_of(profile: Profile | Sequence[Profile]) -> tuple[Profile, ...]:
    """A tuple of profiles, from one profile or from several."""
    several = [profile] if profile and isinstance(profile[0], int) else profile
    return tuple(cast(Profile, tuple(one)) for one in cast(Sequence[Profile], several))


def checked_targets(flavour: Flavour, targets: Sequence[str]) -> tuple[str, ...]:
    """The targets to build for, each once and in ascending order; empty for the GPU at hand.

    Raises:
        DeviceError: the flavour does not build for one of them.
    """
    if targets and not flavour.targets:
        raise DeviceError(
            f"{flavour.title} builds for the GPU at hand, and not for {', '.join(targets)}; leave the targets out, or "
            "take the flavour 'rtx'"
        )
    for target in targets:
        if target not in flavour.targets:
            raise DeviceError(
                f"{flavour.title} does not build for {target}; it does for {', '.join(flavour.targets)}. Full TensorRT "
                "builds for the GPU at hand, whatever it is: take the flavour 'full' there"
            )
    wanted = targets or flavour.usual
    return tuple(target for target in flavour.targets if target in wanted)


def _built(
    library: Any, flavour: Flavour, graph: Graph, targets: Sequence[str], profiles: Sequence[Profile]
) -> tuple[bytes, tuple[Value, ...], tuple[Value, ...]]:
    log = kept_log(library)
    builder = library.Builder(log)
    # From TensorRT 11 on every network is strongly typed, and the flag changes nothing.
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log)
    if not parser.parse(graph.content):
        raise CheckpointError(f"{graph.what} cannot be built: {parse_fault(parser, flavour.title)}")
    inputs = tuple(_value(network.get_input(number)) for number in range(network.num_inputs))
    outputs = tuple(_value(network.get_output(number)) for number in range(network.num_outputs))
    config = _config(library, builder, flavour, graph, targets, profiles)
    content = builder.build_serialized_network(network, config)
    if content is None:
        reason = next((text for text in map(plain, log.errors) if text), "it does not say why")
        raise CheckpointError(f"{flavour.title} cannot build {graph.what} for {_for(targets, profiles)}: {reason}")
    return bytes(content), inputs, outputs


def _config(
    library: Any, builder: Any, flavour: Flavour, graph: Graph, targets: Sequence[str], profiles: Sequence[Profile]
) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(library.BuilderFlag.TF32)
    for flag in flavour.flags:
        config.set_flag(getattr(library.BuilderFlag, flag))
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        for value in graph.inputs:
            shapes.set_shape(value.name, *[(batch, *value.shape[1:]) for batch in profile])
        if config.add_optimization_profile(shapes) < 0:
            raise CheckpointError(f"{flavour.title} refuses the profile {profile} for {graph.what}; take another one")
    if targets:
        config.num_compute_capabilities = len(targets)
    for number, target in enumerate(targets):
        config.set_compute_capability(getattr(library.ComputeCapability, target.replace("sm_", "SM")), number)
    return config


def _value(tensor: Any) -> Value:
    return Value(tensor.name, DTYPES[tensor.dtype.name], tuple(tensor.shape))


def _for(targets: Sequence[str], profiles: Sequence[Profile]) -> str:
    batches = " and ".join(f"batches of {least} to {most}" for least, _, most in profiles)
    return f"{', '.join(targets) or 'this GPU'} and {batches}"
