"""What every kernel's result is: on every backend, in every dtype, for every size, layout and kind of number."""

from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils import deterministic

from .judge import DTYPES, LAYOUTS, assert_same_bits, scattered
from .subjects import ON_GPUS, SUBJECTS, each, on_each_backend

# What is not finite meets itself in sums, and NumPy, which interprets Triton here, says so.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

FLOATS = [subject for subject in SUBJECTS if subject.kind == "values" and subject.name != "feather_blend"]


@on_each_backend(dtypes=DTYPES)
def test_result_is_as_exact_as_eager(subject, backend, dtype):
    layouts = [(size, "contiguous") for size in subject.sizes] + [(size, "channels-last") for size in subject.deep]
    for size, layout in layouts:
        tensors = subject.lay(subject.make(size, dtype), layout)
        y = subject.call(*tensors, backend=backend)
        assert y.shape == subject.result(*size)
        subject.judge(y, tensors)
        if backend in subject.equal:
            assert_same_bits(y, subject.call(*tensors, backend="reference"))


@each(FLOATS)
def test_float64_is_the_definitions(subject):
    tensors = subject.make(subject.sizes[1], torch.float64)
    torch.testing.assert_close(
        subject.call(*tensors, backend="reference"), subject.exact(tensors), rtol=1e-13, atol=1e-13
    )


@on_each_backend()
@pytest.mark.parametrize("values", [1, 3, 7, 1023, 1025, 4097])
def test_odd_lengths_are_right(subject, backend, values):
    for channels_last in (False, True):
        size = subject.long(values, channels_last)
        if channels_last and len(subject.shapes(*size)[0]) != 4 and size == subject.long(values, False):
            continue  # rows have one memory order
        tensors = subject.make(size)
        if channels_last and tensors[0].dim() == 4:
            tensors = subject.lay(tensors, "channels-last")
        subject.judge(subject.call(*tensors, backend=backend), tensors)


@on_each_backend(dtypes=[torch.float32, torch.bfloat16])
def test_layout_changes_no_value_and_is_kept(subject, backend, dtype):
    for layout in subject.layouts:
        tensors = subject.lay(subject.make(subject.small, dtype), layout)
        y = subject.call(*tensors, backend=backend)
        subject.judge(y, tensors)
        dense = [t.contiguous() for t in tensors]
        if backend in subject.equal:
            assert_same_bits(y, subject.call(*dense, backend="reference"))
        elif subject.one_order and backend in ("native", "triton"):  # the others are as torch's functions are
            assert_same_bits(y, subject.call(*dense, backend=backend))
        by_pixel = subject.by_pixel or (layout == "channels-last" and y.dim() == 4 and subject.kind == "values")
        assert y.is_contiguous(memory_format=torch.channels_last if by_pixel else torch.contiguous_format)


@each([subject for subject in SUBJECTS if subject.native])
def test_native_threads_share_one_map(subject):
    for size in subject.shared:
        for layout in subject.layouts[:2]:
            tensors = subject.lay(subject.make(size), layout)
            y = subject.call(*tensors, backend="native")
            subject.judge(y, tensors)
            if "native" in subject.equal:
                assert_same_bits(y, subject.call(*tensors, backend="reference"))


@on_each_backend([s for s in SUBJECTS if s.native and not s.name.startswith("feather")], without="reference")
def test_a_sample_does_not_depend_on_the_others(subject, backend):
    for size in subject.shared if backend == "native" else [subject.small]:
        for layout in subject.layouts[:2]:
            tensors = subject.lay(subject.make(size), layout)
            y = subject.call(*tensors, backend=backend)
            for k in range(size[0]):
                of_one = [t[k : k + 1] if t.dim() > 1 and t.shape[0] > 1 else t for t in tensors]
                assert_same_bits(subject.call(*of_one, backend=backend), y[k : k + 1])


def property_holds(subject, backend, size, dtype, seed) -> None:
    random = Random(seed)
    tensors = subject.make(size, dtype, seed)
    if random.random() < 0.3 and tensors[0].dim() == 4:
        tensors = [LAYOUTS["channels-last"](t) if t.dim() == 4 else t for t in tensors]
    else:
        tensors = [scattered(t, random) for t in tensors]
    y = subject.call(*tensors, backend=backend)
    assert y.shape == subject.result(*size)
    if backend in subject.equal:
        assert_same_bits(y, subject.call(*tensors, backend="reference"))
    if y.numel():
        subject.judge(y, tensors)


@on_each_backend(without="triton")
def test_any_size_strides_and_dtype_are_right(subject, backend):
    dtypes = [dtype for dtype in DTYPES if backend in subject.backends(dtype)]

    @settings(max_examples=40 if backend == "native" else 12)
    @given(size=subject.any_size, dtype=st.sampled_from(dtypes), seed=st.integers(0, 999))
    def holds(size, dtype, seed):
        property_holds(subject, backend, size, dtype, seed)

    holds()


@each(ON_GPUS)
def test_any_size_strides_and_dtype_are_right_in_triton(subject):
    @settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
    @given(size=subject.any_size, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 999))
    def holds(size, dtype, seed):
        # The interpreter needs seconds for the largest; what is longer than a tile is among the subject's sizes.
        property_holds(subject, "triton", tuple(min(side, 6) for side in size), dtype, seed)

    holds()


@on_each_backend(dtypes=DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_nan_and_infinity_come_through(subject, backend, dtype, bad):
    if bad == bad and not subject.infinities:
        return
    # Windows must be finite, and what falls on no pixel is not seen.
    places = 1 if subject.name.startswith("feather_blend") else len(subject.make(subject.small))
    ends = (0, -1)
    if backend == "triton" and dtype != torch.float32:
        places, ends = 1, ends[1:]  # the interpreter is slow, and halves are widened before anything is computed
    for place in range(places):
        if subject.name == "winograd_conv 3x3 transposed" and place == 1:
            continue  # a pixel has some of the taps only, but sums of taps have NaN in all of them
        for at in ends:
            tensors = subject.make(subject.small, dtype, seed=2)
            tensors[place].view(-1)[at] = bad
            subject.judge(subject.call(*tensors, backend=backend), tensors)


@on_each_backend()
def test_empty_maps_stay_empty(subject, backend):
    for size in subject.empty:
        y = subject.call(*subject.make(size), backend=backend)
        assert y.shape == subject.result(*size)
        if y.numel():  # a picture of no patches
            assert (y == (128 if subject.kind == "bytes" else 0)).all()


@on_each_backend()
def test_arguments_are_not_changed(subject, backend):
    for layout in subject.layouts[:2]:
        tensors = subject.lay(subject.make(subject.small), layout)
        before = [t.clone() for t in tensors]
        y = subject.call(*tensors, backend=backend)
        for now, then in zip(tensors, before, strict=True):
            assert_same_bits(now, then)
            assert y.data_ptr() != now.data_ptr()


@on_each_backend()
def test_hundred_runs_give_the_same_bits(subject, backend):
    tensors = subject.make(subject.shared[-1] if backend == "native" else subject.small)
    first = subject.call(*tensors, backend=backend)
    # The interpreter takes 5 to 150 ms a run; 100 runs of Triton are for devices.
    for _ in range(3 if backend == "triton" else 100):
        assert torch.equal(subject.call(*tensors, backend=backend), first)


@on_each_backend()
def test_memory_that_was_not_written_is_not_read(subject, backend, monkeypatch):
    """Nothing of a new tensor is left as it was: here that is NaN, or the largest number."""
    monkeypatch.setattr(deterministic, "fill_uninitialized_memory", True)
    for layout in subject.layouts[:2]:
        tensors = subject.lay(subject.make(subject.small), layout)
        expected = subject.call(*tensors, backend=backend)
        torch.use_deterministic_algorithms(True)
        try:
            actual = subject.call(*tensors, backend=backend)
        finally:
            torch.use_deterministic_algorithms(False)
        assert_same_bits(actual, expected)
