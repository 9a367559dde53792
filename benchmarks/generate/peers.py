"""The peers, each in its strongest form: functions of a subject's inputs that make its images."""

import io
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...kernels import plain_operators
from ..kernels.exported import Unmeasured, first_line
from .exported import (
    onnx_graphs,
    onnxruntime_function,
    openvino_function,
    openvino_graph,
    tensorrt_engine,
    tensorrt_function,
)
from .ours import ours
from .subjects import Inputs, Subject

__all__ = ["PEERS", "Runner", "make_runner", "plain", "write_graph"]

PEERS = ("eager", "compile", "onnxruntime", "openvino", "tensorrt")
Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Runner:
    """A way to make images that can be timed.

    Attributes:
        call: makes the images of the batch: float32 [N, 3, R, R] on the device.
        form: the name of its form, if it has several.
    """

    call: Callable[[], Tensor]
    form: str = ""


def make_runner(name: str, subject: Subject, precision: str, batch: int, folder: Path) -> Runner:
    """Make a runner ready, "zellige" or one of PEERS.

    Args:
        name: of the runner.
        subject: the generator that it runs.
        precision: "fp32" or "bf16".
        batch: number of images a call.
        folder: for graphs; those that are there are used.
    Raises:
        Unmeasured: the runner is not installed, or fails.
    """
    with _unmeasured(name):
        return _make(name, subject, precision, subject.inputs(batch), folder)


def write_graph(name: str, subject: Subject, precision: str, batch: int, folder: Path) -> None:
    """Write the graph that a runner reads into the folder, if it reads one; arguments as in `make_runner`.

    Raises:
        Unmeasured: the runner's package is not installed, or the export fails.
    """
    writers: dict[str, dict[str, Callable[..., Any]]] = {
        "cpu": {"onnxruntime": onnx_graphs, "openvino": openvino_graph},
        "cuda": {"tensorrt": tensorrt_engine},
    }
    write = writers[subject.device.type].get(name)
    if write is None:
        return
    with _unmeasured(name):
        if name != "tensorrt":  # TensorRT has one of two packages
            import_module(name)
        write(subject, precision, subject.inputs(batch), folder)


def plain(network: Function) -> Function:
    """Return the network as standard operators."""

    def call(*inputs: Tensor) -> Tensor:
        with plain_operators():
            y: Tensor = network(*inputs)
        return y

    return call


def _make(name: str, subject: Subject, precision: str, inputs: Inputs, folder: Path) -> Runner:
    if name == "zellige":
        return _bound(ours(subject, precision, len(inputs[0])), inputs)
    if name == "eager":
        return _bound(plain(subject.at(precision)), inputs)
    if name == "compile":
        return _compiled(subject, precision, inputs)
    if name == "tensorrt":
        if subject.device.type != "cuda":
            raise Unmeasured(f"tensorrt is not available here: it runs on CUDA devices, and not on {subject.device}")
        call, library = tensorrt_function(subject, precision, inputs, folder)
        return _bound(call, inputs, library)
    if subject.device.type != "cpu":
        raise Unmeasured(f"{name} is measured on CPUs only")
    if name == "onnxruntime":
        call, form = onnxruntime_function(subject, precision, inputs, folder)
        return _bound(call, inputs, form)
    return _bound(openvino_function(subject, precision, inputs, folder), inputs)


def _bound(function: Function, inputs: Inputs, form: str = "") -> Runner:
    def call() -> Tensor:
        with torch.inference_mode():
            return function(*inputs)

    return Runner(call, form)


def _compiled(subject: Subject, precision: str, inputs: Inputs) -> Runner:
    """Return the faster of torch.compile's default and max-autotune, frozen; on GPUs max-autotune, captured."""
    tuned: dict[str, Any] = {"max_autotune": True}
    forms: dict[str, dict[str, Any]] = {"freezing": {}, "freezing, max-autotune": tuned}
    if subject.device.type == "cuda":
        graphs = {"triton.cudagraphs": True, "coordinate_descent_tuning": True}
        forms = {"freezing, max-autotune, CUDA graphs": tuned | graphs}
    network, found = subject.at(precision), []
    # Runners of other batches and precisions share the code object, which torch compiles only a few times. Without the
    # reset the later runners would be eager.
    torch.compiler.reset()
    for form, options in forms.items():
        compiled = torch.compile(network, fullgraph=True, dynamic=False, options=options | {"freezing": True})
        runner = _bound(plain(compiled), inputs, form)
        for _ in range(3):  # on a GPU the second call captures
            runner.call()
        with torch.compiler.set_stance("fail_on_recompile"):  # else the compiler would be timed
            found.append((_quick(runner.call, subject.device) if len(forms) > 1 else 0.0, runner))
    return min(found, key=lambda pair: pair[0])[1]


def _quick(call: Callable[[], Tensor], device: torch.device) -> float:
    times = []
    for _ in range(5):
        before = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - before)
    return min(times)


@contextmanager
def _unmeasured(name: str) -> Iterator[None]:
    """Turn any error of a runner into the reason why it is not measured; hide warnings of compilers and exporters."""
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Unmeasured:
        raise
    except ImportError as error:
        raise Unmeasured(f"{error.name} is not installed") from error
    except Exception as error:  # the errors of runtimes have no common class
        raise Unmeasured(f"{name}: {first_line(error)}") from error
