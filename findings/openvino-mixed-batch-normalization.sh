#!/usr/bin/env bash
# openvino 2026.4.1 cannot compile an ONNX BatchNormalization whose maps are float16 and whose scale, shift, mean and
# variance are float32.
#
# ONNX allows these types since opset 15, because statistics lose too much in float16, and torch.onnx writes them for a
# network in half precision whose batch norms stay in float32. onnx's checker with shape inference and ONNX Runtime
# 1.31.1 take the model. OpenVINO reads it and refuses it when it is compiled; with all five in float16 it compiles.
#
# Seen, and expected below:
#   float32 parameters: onnxruntime float16 (1, 2, 4, 4), openvino RuntimeError
#   float16 parameters: onnxruntime float16 (1, 2, 4, 4), openvino compiles
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6 2> pip.txt || { cat pip.txt; exit 1; }
cat > seen.py <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper


def model(dtype):
    values = {"scale": [1, 2], "shift": [0, 1], "mean": [0, 0.5], "var": [1, 4]}
    weights = [numpy_helper.from_array(np.array(value, dtype), name) for name, value in values.items()]
    graph = helper.make_graph(
        [helper.make_node("BatchNormalization", ["x", *values], ["y"])], "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 2, 4, 4])], weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float16)
for name, dtype in (("float32", np.float32), ("float16", np.float16)):
    content = model(dtype)
    (found,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    core = openvino.Core()
    try:
        core.compile_model(core.read_model(content), "CPU")
        told = "compiles"
    except Exception as error:
        told = type(error).__name__
    print(f"{name} parameters: onnxruntime {found.dtype} {found.shape}, openvino {told}")
PYTHON
env/bin/python seen.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
diff seen.txt - <<'EXPECTED'
float32 parameters: onnxruntime float16 (1, 2, 4, 4), openvino RuntimeError
float16 parameters: onnxruntime float16 (1, 2, 4, 4), openvino compiles
EXPECTED
echo "as described: openvino $(env/bin/python -c 'import openvino; print(openvino.__version__)')"
