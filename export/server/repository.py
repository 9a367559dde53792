"""A model repository for the server: a model, and the configuration with which the server runs it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from zellige.errors import OutputError, SizeError, TaskError

from ...engine.files.atomic import AtomicFolder, output_errors
from .config import Entry, Word, text_format
from .model import DATA_TYPES, Model, Port, onnx_model, plan_model

__all__ = ["Port", "write_repository"]

_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_ENGINES = (".engine", ".plan", ".trt")
_RANDOM = ("float32", "float16", "bfloat16", "uint8")  # other integers are classes, and a random one may be in no table


def write_repository(
    model: Path,
    out: Path,
    *,
    name: str,
    max_batch: int = 32,
    instances: int = 1,
    device: Literal["cpu", "gpu"] = "gpu",
    preferred: Sequence[int] = (),
    max_queue_delay_us: int = 1000,
    ports: tuple[Sequence[Port], Sequence[Port]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write a model and its configuration into a model repository, complete or not at all.

    It writes `out/name/config.pbtxt`, and `out/name/1/model.onnx` with its external data or `out/name/1/model.plan`.
    The server puts requests together to batches. Before an instance takes requests, it runs once for each size of batch
    that is named here, on random floats and bytes and on classes of 0. It runs nothing if a side beside N is free.

    An input [N], such as a class, takes requests of [N, 1], because the server knows no tensors without sides beside N.

    Args:
        model: a .onnx file whose inputs and outputs are [N, ...], N of any size; or a TensorRT engine (.plan, .engine).
        out: the repository; made if it is missing, and may hold other models.
        name: name of the model: letters, digits, ".", "_" and "-", a letter or digit first.
        max_batch: most images in a batch; an engine must have been built for as many.
        instances: copies of the model that run at a time, on each GPU or on the CPU.
        device: where the copies run, "cpu" or "gpu"; engines run on "gpu" alone.
        preferred: sizes of batches at which the server waits no longer, such as those that an engine was tuned for.
        max_queue_delay_us: microseconds that a request waits at most for others.
        ports: inputs and outputs of an engine, which only the library that built it could read from the file.
        metadata: parameters of the model; those in an ONNX file whose names begin with "zellige." are added.
    Returns:
        `name`, `backend`, `config` (the configuration's text), `files` (paths) and `bytes` (their sum).
    Raises:
        OutputError: the repository cannot be written, or holds the model already.
        SizeError: a number is out of range.
        TaskError: the server cannot take the name, the device or the ports.
        CheckpointError: the model cannot be served.
        MissingExtraError: onnx is not installed.
    Source: Triton Inference Server, user guide, model repository and model configuration.
    """
    if not re.fullmatch(_NAME, name):
        raise TaskError(
            f"a model cannot be named {name!r}; take letters, digits, '.', '_' and '-', a letter or digit first"
        )
    if device not in ("cpu", "gpu"):
        raise TaskError(f"instances cannot run on {device!r}; take 'cpu' or 'gpu'")
    _check_range("max_batch", max_batch, 1, 65536)
    _check_range("instances", instances, 1, 1024)
    _check_range("max_queue_delay_us", max_queue_delay_us, 0, 10**9)
    for size in preferred:
        _check_range("preferred", size, 1, max_batch)
    target = Path(out) / name
    _check_target(target)
    found = _opened(Path(model), device, ports)
    own = {key: text for key, text in found.metadata.items() if key.startswith("zellige.")}
    sizes = sorted({*preferred})
    config = text_format(
        [
            ("name", name), ("platform", found.platform), ("backend", found.backend),
            ("default_model_filename", found.main), ("version_policy", [("latest", [("num_versions", 1)])]),
            ("max_batch_size", max_batch), *_described(found),
            ("instance_group", [("count", instances), ("kind", Word(f"KIND_{device.upper()}"))]),
            ("dynamic_batching", _batching(sizes, max_queue_delay_us)), *_warmup(found, sorted({1, *sizes, max_batch})),
            *(_parameter(key, text) for key, text in sorted({**own, **(metadata or {})}.items())),
        ]
    )  # fmt: skip
    with AtomicFolder(target) as folder, output_errors(target):
        (folder / "1").mkdir()
        (folder / "config.pbtxt").write_text(config, encoding="ascii")
        found.write(folder / "1")
    files = sorted(path for path in target.rglob("*") if path.is_file())
    written = sum(path.stat().st_size for path in files)
    return {"name": name, "backend": found.backend, "config": config, "files": [*map(str, files)], "bytes": written}


def _opened(model: Path, device: str, ports: tuple[Sequence[Port], Sequence[Port]] | None) -> Model:
    if model.suffix == ".onnx":
        if ports is not None:
            raise TaskError(f"{model} says itself what its inputs and outputs are; leave out ports")
        return onnx_model(model)
    if model.suffix not in _ENGINES:
        raise TaskError(f"{model} is neither a .onnx file nor an engine ({', '.join(_ENGINES)}); name one of these")
    if device == "cpu":
        raise TaskError(f"the engine {model} runs on GPUs alone; take device 'gpu', or a .onnx file")
    return plan_model(model, ports)


def _check_range(what: str, number: int, least: int, most: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise SizeError(f"{what} must be a whole number from {least} to {most}; got {number!r}")


def _described(model: Model) -> Iterator[Entry]:
    for kind, ports in (("input", model.inputs), ("output", model.outputs)):
        for port in ports:
            entries: list[Entry] = [("name", port.name), ("data_type", _data_type(port)), ("dims", _dims(port))]
            yield kind, entries + ([] if len(port.shape) > 1 else [("reshape", [("shape", ())])])


def _data_type(port: Port) -> Word:
    return Word(f"TYPE_{DATA_TYPES[port.dtype][0]}")


def _dims(port: Port) -> tuple[int, ...]:
    """Return the port's sides without N, -1 for any size. If there are none it is [1], which `reshape` takes away."""
    return tuple(side if isinstance(side, int) else -1 for side in port.shape[1:]) or (1,)


def _batching(sizes: Sequence[int], delay: int) -> list[Entry]:
    preferred: list[Entry] = [("preferred_batch_size", tuple(sizes))] if sizes else []
    return [*preferred, ("max_queue_delay_microseconds", delay)]


def _warmup(model: Model, sizes: Sequence[int]) -> Iterator[Entry]:
    if any(-1 in _dims(port) for port in model.inputs):
        return
    inputs: list[Entry] = []
    for port in model.inputs:
        data = "random_data" if port.dtype in _RANDOM else "zero_data"
        sample: list[Entry] = [("data_type", _data_type(port)), ("dims", _dims(port)), (data, Word("true"))]
        inputs.append(("inputs", [("key", port.name), ("value", sample)]))
    for size in sizes:
        yield "model_warmup", [("name", f"batch of {size}"), ("batch_size", size), *inputs]


def _parameter(key: str, text: str) -> Entry:
    return "parameters", [("key", key), ("value", [("string_value", text)])]


def _check_target(target: Path) -> None:
    with output_errors(target):
        if (target / "config.pbtxt").exists():
            raise OutputError(
                f"{target.parent} holds the model {target.name!r} already; remove {target}, or give another name."
            )
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise OutputError(f"{target} exists and is no model of a repository; remove it, or give another name.")
