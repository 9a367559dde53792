"""What the stand-ins offer, the true libraries have: otherwise the tests would be of other libraries."""

import pytest

from . import stand_in_cuda, stand_in_tensorrt


def public(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (stand_in_tensorrt.EngineOfTensorRT, "ICudaEngine"), (stand_in_tensorrt.Context, "IExecutionContext"),
        (stand_in_tensorrt.Mode, "TensorIOMode"), (stand_in_tensorrt.Severity, "ILogger.Severity"),
    ],
)  # fmt: skip
def test_tensorrt_has_what_its_stand_in_has(ours: type, theirs: str) -> None:
    found = pytest.importorskip("tensorrt_rtx")
    for name in theirs.split("."):
        found = getattr(found, name)
    assert set(public(ours)) <= set(dir(found))


def test_tensorrt_has_the_settings_of_contexts() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    assert library.ExecutionContextAllocationStrategy.USER_MANAGED
    assert library.DynamicShapesKernelSpecializationStrategy.EAGER
    settings = {"set_execution_context_allocation_strategy", "dynamic_shapes_kernel_specialization_strategy"}
    assert settings <= set(dir(library.IRuntimeConfig))


def test_cupy_has_what_its_stand_in_has() -> None:
    cupy = pytest.importorskip("cupy")
    made = stand_in_cuda.cupy(stand_in_cuda.Cuda())
    assert set(vars(made)) <= set(dir(cupy)) and set(vars(made.cuda)) <= set(dir(cupy.cuda))
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, Exception)
    assert {"malloc", "set_limit"} <= set(dir(cupy.cuda.MemoryPool))
    streams = set(public(stand_in_cuda.Stream))
    assert streams <= set(dir(cupy.cuda.Stream)) and streams <= set(dir(cupy.cuda.ExternalStream))
    assert {"data", "set", "get"} <= set(dir(cupy.ndarray)) and "out" in (cupy.ndarray.get.__doc__ or "")
    assert "launch" in dir(cupy.cuda.Graph)
