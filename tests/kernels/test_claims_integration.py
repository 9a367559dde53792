"""How every kernel works with the rest of torch: compilers, export, autocast, vmap, and the choice of a backend."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zellige.errors import DeviceError
from zellige.kernels import available_backends

from .judge import assert_same_bits
from .subject import Subject
from .subjects import DIFFERENTIABLE, SUBJECTS, each, on_each_backend


class Calls(TorchDispatchMode):
    """Every call of a custom op of ours, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function.namespace == "zellige":
            self.found.append((function, arguments))
        return function(*arguments, **(options or {}))


# Each form has its own graph, but these two options of winograd_conv are compiled together in a third one.
UNLIKE = [subject for subject in SUBJECTS if subject.name not in ("winograd_conv x2", "winograd_conv, border")]


def detached(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(t.detach() if isinstance(t, Tensor) else t for t in arguments)


def small(subject: Subject) -> list[Tensor]:
    return subject.make(tuple(min(side, 3) for side in subject.small))


def recorded(subject: Subject, backend: str | None) -> list[tuple[Any, tuple[Any, ...]]]:
    """The calls of the custom ops, that of the backward too, with the arguments that autograd gives it."""
    leaves = subject.leaves(small(subject))
    with Calls() as calls:
        y = subject.call(*leaves, backend=backend)
        if subject.gradients:
            y.backward(torch.ones_like(y))
    assert len(calls.found) == (2 if subject.gradients else 1)
    return calls.found


@on_each_backend()
def test_custom_ops_are_what_their_schemas_and_fakes_say(subject, backend):
    for function, arguments in recorded(subject, backend):
        torch.library.opcheck(function, detached(arguments), test_utils=("test_schema", "test_faketensor"))


@each()
def test_custom_ops_pass_opcheck(subject):
    """With the best backend: what compilers see of an op is the same for all."""
    found = recorded(subject, None)
    for function, arguments in found:
        torch.library.opcheck(function, detached(arguments))
    if subject.gradients:
        function, arguments = found[0]
        torch.library.opcheck(
            function,
            tuple(t.detach().requires_grad_(t.is_floating_point()) if isinstance(t, Tensor) else t for t in arguments),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"),
        )


class Layer(nn.Module):
    """A kernel between two other functions."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        y = self.subject.call(first.mul(0.5), *others, backend=None)
        return y.tanh() if y.is_floating_point() else y + 1


def results(layer: Any, tensors: list[Tensor], subject: Subject) -> list[Tensor]:
    leaves = subject.leaves(tensors)
    y = layer(*leaves)
    return [y.detach(), *(torch.autograd.grad(y.sum(), leaves) if subject.gradients else ())]


@each(UNLIKE)
def test_compiles_as_one_graph_for_all_sizes_with_its_backward(subject):
    torch.compiler.reset()
    layer = Layer(subject)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    results(compiled, subject.make(subject.small), subject)
    with torch.compiler.set_stance("fail_on_recompile"):
        for size in (subject.small, tuple(side + 1 for side in subject.small)):
            tensors = subject.make(size)
            for actual, expected in zip(
                results(compiled, tensors, subject), results(layer, tensors, subject), strict=True
            ):
                torch.testing.assert_close(actual, expected)


@pytest.mark.slow
def test_inductor_gives_what_eager_gives():
    """All in one graph and between two functions of all values: each costs a start of the compiler of C++."""
    torch.compiler.reset()
    kernels = list({subject.name.replace(",", " ").split()[0]: subject for subject in DIFFERENTIABLE}.values())
    layers, sets = [subject.call for subject in kernels], [subject.make(subject.small) for subject in kernels]
    drawn = [t for tensors in sets for t in tensors]
    sizes, shapes, counts = [t.numel() for t in drawn], [t.shape for t in drawn], [len(tensors) for tensors in sets]

    def every(values: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip((values * 0.5).split(sizes), shapes, strict=True)]
        results = []
        for layer, count in zip(layers, counts, strict=True):
            results.append(layer(*parts[:count], backend=None).flatten())
            parts = parts[count:]
        return torch.cat(results).tanh()

    found = []
    for function in (torch.compile(every, fullgraph=True), every):
        values = torch.cat([t.flatten() for t in drawn]).requires_grad_()
        y = function(values)
        found.append((y, *torch.autograd.grad(y.sum(), values)))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


@each()
def test_exports_for_any_batch(subject):
    tensors = subject.make(subject.small)
    samples = subject.small[0]
    sizes = tuple({0: torch.export.Dim.DYNAMIC} if t.dim() and t.shape[0] == samples else None for t in tensors)
    dynamic = {"first": sizes[0]} | ({"others": sizes[1:]} if tensors[1:] else {})
    program = torch.export.export(Layer(subject), tuple(tensors), dynamic_shapes=dynamic)
    for size in (subject.small, (samples + 3, *subject.small[1:])):
        tensors = subject.make(size)
        torch.testing.assert_close(program.module()(*tensors), Layer(subject)(*tensors), rtol=0, atol=0)


@contextmanager
def settings_of_a_host() -> Iterator[None]:
    """Autocast, another default dtype and another default device, as the program around a model may have set them."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@on_each_backend(dtypes=[torch.float32, torch.bfloat16])
def test_what_a_host_program_has_set_changes_no_bit(subject, backend, dtype):
    """Maps in bfloat16 beside float32 factors, as a network has them there; gradients of gradients inside it too."""
    tensors = subject.make(subject.small, dtype)

    def run(settings: AbstractContextManager[None]) -> list[Tensor]:
        leaves = subject.leaves(tensors)
        with settings:
            y = subject.call(*leaves, backend=backend)
            if not subject.gradients:
                return [y]
            once = torch.autograd.grad(y.float().sum(), leaves, retain_graph=True)
            graph = torch.autograd.grad(y.float().pow(2).sum(), leaves, create_graph=True)
            return [y, *once, *graph]

    for actual, expected in zip(run(settings_of_a_host()), run(nullcontext()), strict=True):
        assert_same_bits(actual.detach(), expected.detach())


@pytest.mark.filterwarnings("ignore:.*batching rule")
@each()
def test_vmap_equals_a_loop(subject):
    sets = [subject.make(subject.small, seed=seed) for seed in range(3)]
    stacked = [torch.stack(tensors) for tensors in zip(*sets, strict=True)]
    y = torch.vmap(lambda *tensors: subject.call(*tensors, backend=None))(*stacked)
    for actual, tensors in zip(y, sets, strict=True):
        assert_same_bits(actual, subject.call(*tensors, backend=None))


@each()
def test_the_best_backend_runs_unless_another_is_named(subject):
    tensors = subject.make(subject.small)
    y = subject.call(*tensors, backend=None)
    if subject.best is not None:
        assert_same_bits(y, subject.call(*tensors, backend=subject.best))
    expected = "native" if subject.native else subject.best
    assert subject.best == expected and available_backends(torch.device("cpu"))[0] == "native"
    assert available_backends(torch.device("meta")) == ("reference",)


@each()
def test_a_backend_that_cannot_run_is_refused(subject):
    tensors = subject.make(subject.small)
    with pytest.raises(DeviceError, match=r"^backend 'cuda' cannot run on (float32 )?cpu tensors here; choose one of "):
        subject.call(*tensors, backend="cuda")
    halves = subject.make(subject.small, torch.float16)
    if torch.float16 not in subject.native:
        with pytest.raises(DeviceError, match=r"^backend 'native' cannot run on float16 cpu tensors here; choose one"):
            subject.call(*halves, backend="native")
    assert subject.call(*halves, backend=None).shape == subject.result(*subject.small)


@each([subject for subject in SUBJECTS if not subject.name.startswith("feather")])
def test_float64_runs_on_the_reference_only(subject):
    tensors = subject.make(subject.small, torch.float64)
    y = subject.call(*tensors, backend=None)
    torch.testing.assert_close(y, subject.call(*tensors, backend="reference"))
    for backend in ("native", "triton"):
        with pytest.raises(
            DeviceError, match=f"^backend {backend!r} cannot run on float64 cpu tensors here; choose one"
        ):
            subject.call(*tensors, backend=backend)
