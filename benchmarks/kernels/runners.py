"""The kernel and its peers as calls that can be timed, one call for every set of inputs."""

import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .cases import Case
from .exported import Unmeasured, exported, first_line, onnxruntime_calls, openvino_calls
from .measure import Call

__all__ = ["PEERS", "Inputs", "Runner", "makers"]

# A case's peer "sdpa-math" is a form of the peer "sdpa".
PEERS = ("eager", "compile", "sdpa", "liger", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Runner:
    """A way to compute a case that can be timed.

    Attributes:
        calls: one for every set of inputs; each returns its result, or the gradients, as a tuple.
        form: the fastest of its forms, if it has several.
    """

    calls: Sequence[Call]
    form: str = ""


@dataclass(frozen=True)
class Inputs:
    """Sets of inputs, the same for all runners.

    Attributes:
        sets: the sets of inputs.
        slopes: gradients of the results, one for each set; None for the forward pass.
    """

    sets: Sequence[tuple[Any, ...]]
    slopes: Sequence[Tensor] | None = None

    def calls(self, function: Callable[..., Tensor]) -> list[Call]:
        """Return the calls of a function on all sets."""
        if self.slopes is None:
            return [partial(_forward, function, inputs) for inputs in self.sets]
        return [partial(_gradients, function, *both) for both in zip(self.sets, self.slopes, strict=True)]


def makers(case: Case, inputs: Inputs, against: Sequence[str]) -> Iterator[tuple[str, Callable[[], Runner]]]:
    """Yield the kernel and its peers by name, each with a function that makes it ready or raises Unmeasured."""
    yield "zellige", lambda: Runner(inputs.calls(case.kernel_call))
    for name, function in {"eager": case.eager, **case.peers}.items():
        if name.split("-")[0] in against:
            yield name, partial(_plain, name, function, inputs)
    if "compile" in against:
        yield "compile", partial(_compiled, case, inputs)
    if inputs.slopes is None:
        for name in ("onnxruntime", "openvino"):
            if name in against:
                yield name, partial(_elsewhere, name, case, inputs)


def _plain(name: str, function: Callable[..., Tensor], inputs: Inputs) -> Runner:
    calls = inputs.calls(function)
    with _unmeasured(name):
        calls[0]()
    return Runner(calls)


def _compiled(case: Case, inputs: Inputs) -> Runner:
    """Return the fastest of torch.compile's forms that can differ here; none is captured, which would copy inputs."""
    tuned = {"max_autotune": True}
    forms: dict[str, dict[str, Any]] = {"default": {}}
    if inputs.sets[0][0].device.type == "cuda":
        forms = {"max-autotune": tuned | {"coordinate_descent_tuning": True}}
    elif case.operations:  # only matrix products have choices on CPUs
        forms["max-autotune"] = tuned
    if isinstance(case.eager, nn.Module) and inputs.slopes is None:  # only modules have constants
        forms = {f"{name}, freezing": options | {"freezing": True} for name, options in forms.items()}
    best, found = float("inf"), None
    torch.compiler.reset()  # cases share code objects, and torch compiles each a few times only
    for form, options in forms.items():
        with _unmeasured("torch.compile"):
            calls = inputs.calls(torch.compile(case.eager, dynamic=False, options=options))
            calls[0]()
            with torch.compiler.set_stance("fail_on_recompile"):  # else the compiler would be timed
                for call in calls:
                    call()
            seconds = _quick(calls) if len(forms) > 1 else 0.0
        if seconds < best:
            best, found = seconds, Runner(calls, form)
    assert found is not None
    return found


def _elsewhere(name: str, case: Case, inputs: Inputs) -> Runner:
    if inputs.sets[0][0].device.type != "cpu":
        raise Unmeasured(f"{name} is measured on CPUs only")
    if case.by_pixel:
        raise Unmeasured(f"{name} takes maps by plane only")
    function = case.graph or case.eager
    result = torch.empty_like(function(*inputs.sets[0]), memory_format=torch.contiguous_format)
    make = onnxruntime_calls if name == "onnxruntime" else openvino_calls
    return Runner([partial(_tuple_of, call) for call in make(exported(function, inputs.sets[0]), inputs.sets, result)])


def _quick(calls: Sequence[Call]) -> float:
    times = []
    for call in calls[:5]:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return min(times)


def _forward(function: Callable[..., Tensor], inputs: Sequence[Any]) -> tuple[Tensor]:
    return (function(*inputs),)


def _gradients(function: Callable[..., Tensor], leaves: Sequence[Tensor], slope: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        return torch.autograd.grad(function(*leaves), [t for t in leaves if t.requires_grad], slope)


def _tuple_of(call: Call) -> tuple[Tensor]:
    return (call(),)


@contextmanager
def _unmeasured(name: str) -> Iterator[None]:
    """Turn any error of a peer into the reason why it is not measured; hide its warnings and its output."""
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise Unmeasured(f"{name}: {first_line(error)}") from error
