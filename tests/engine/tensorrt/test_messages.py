"""Messages are TensorRT-RTX 1.7's own."""

import pytest

from zellige.engine.tensorrt.messages import plain

NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA runtime "
    "version))"
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Invalid Node - mm\nITensor::getDimensions: Error Code 4: API Usage Error (mm: IMatrixMultiplyLayer must "
            "have same input types. `A` is of type Float and `B` is of type Half. In validateTypes at "
            f"/_src/optimizer/common/nodes/matrixMultiplyNode.cpp:38)\n{NO_DRIVER}",
            "mm: IMatrixMultiplyLayer must have same input types. `A` is of type Float and `B` is of type Half",
        ),
        (
            "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion plan.header.size == "
            f"blobSize failed. In parsePlan at /_src/runtime/dispatch/runtime.cpp:780)\n{NO_DRIVER}",
            "Serialization assertion plan.header.size == blobSize failed",
        ),
        (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:1500: run_passes] Cannot compile for "
            "target(s) sm75, because the model contains HW-specific datatypes: b16. In compileGraph at "
            "/_src/optimizer/myelin/codeGenerator.cpp:2012)",
            "Cannot compile for target(s) sm75, because the model contains HW-specific datatypes: b16",
        ),
        (NO_DRIVER, ""),
        ("false", ""),
        ("", ""),
        ('creator && "Plugin not found, are the plugin name, version, and namespace correct?"', ""),
        (
            "Assertion failed: model->Parse: Failed to parse the ONNX model.",
            "model->Parse: Failed to parse the ONNX model",
        ),
    ],
)
def test_a_message_is_said_without_what_is_only_the_librarys(message: str, said: str) -> None:
    assert plain(message) == said
