#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: dnn's new engine, the default, keeps the block layout of convolutions through a Mul
# whose factors have 3 channels and 1 channel. The product's shape is then wrong, or what follows it raises.
#
# The model is Conv(3 channels) * Conv(1 channel), which ONNX broadcasts to 3 channels: an image times a mask. ONNX
# Runtime 1.31.1 returns [2, 3, 8, 8]. OpenCV returns an array of five dimensions; with a Transpose behind the product
# it raises cv2.error with "(C0 <= 1) in function 'toLayout'". An Expand of the mask to 3 channels in front of the Mul
# gives what ONNX Runtime gives.
#
# Seen, and expected below:
#   product: onnxruntime (2, 3, 8, 8), opencv (2, 1, 8, 8, 8)
#   product, transposed: onnxruntime (2, 8, 8, 3), opencv error toLayout
#   expanded, transposed: onnxruntime (2, 8, 8, 3), opencv (2, 8, 8, 3) and equal
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet opencv-python-headless==5.0.0.93 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6 2> pip.txt || { cat pip.txt; exit 1; }
cat > seen.py <<'PYTHON'
import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def model(expanded, transposed):
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((channels, 3, 1, 1)).astype(np.float32), name)
        for channels, name in ((3, "w3"), (1, "w1"))
    ]
    weights.append(numpy_helper.from_array(np.array([2, 3, 8, 8]), "shape"))
    nodes = [helper.make_node("Conv", ["x", "w3"], ["image"]), helper.make_node("Conv", ["x", "w1"], ["mask"])]
    if expanded:
        nodes.append(helper.make_node("Expand", ["mask", "shape"], ["wide"]))
    last = "product" if transposed else "y"
    nodes.append(helper.make_node("Mul", ["image", "wide" if expanded else "mask"], [last]))
    if transposed:
        nodes.append(helper.make_node("Transpose", [last], ["y"], perm=[0, 2, 3, 1]))
    sides = [2, 8, 8, 3] if transposed else [2, 3, 8, 8]
    graph = helper.make_graph(
        nodes, "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sides)], weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
for name, expanded, transposed in (
    ("product", False, False), ("product, transposed", False, True), ("expanded, transposed", True, True)
):
    content = model(expanded, transposed)
    (right,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
    net.setInput(x, "x")
    try:
        found = net.forward()
        told = str(found.shape)
        if found.shape == right.shape and np.allclose(found, right, atol=1e-5):
            told += " and equal"
    except cv2.error as error:
        told = "error toLayout" if "toLayout" in str(error) else f"error {error}"
    print(f"{name}: onnxruntime {right.shape}, opencv {told}")
PYTHON
env/bin/python seen.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
diff seen.txt - <<'EXPECTED'
product: onnxruntime (2, 3, 8, 8), opencv (2, 1, 8, 8, 8)
product, transposed: onnxruntime (2, 8, 8, 3), opencv error toLayout
expanded, transposed: onnxruntime (2, 8, 8, 3), opencv (2, 8, 8, 3) and equal
EXPECTED
echo "as described: opencv $(env/bin/python -c 'import cv2; print(cv2.__version__)')"
