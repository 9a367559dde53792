#!/usr/bin/env bash
# torch 2.13.0: a float16 map times a Python number is another product in the exported ONNX file than in PyTorch.
#
# PyTorch multiplies a float16 tensor by the number in float32 and rounds the product once. `torch.onnx.export` writes the
# number as a float16 constant, so the factor is rounded before it multiplies. The loss does not come from the runtime: the
# constant in the file has another value. With the factor 0.1 a third of the products differ. bfloat16, whose
# numbers are coarser, fares worse. Whoever scales activations by the square root of 2, as StyleGAN2 does in every layer,
# gets a systematic error that grows with the number of layers. A gain that is multiplied into weights is rounded once.
#
# Seen, and expected below:
#   Mul
#   constant float16 0.0999755859
#   torch multiplies by the float32 factor: True
#   the file multiplies by the rounded one: True
#   other values of 1000: 351
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 numpy==2.4.6 2> pip.txt || { cat pip.txt; exit 1; }
cat > seen.py <<'PYTHON'
import logging
import warnings

import numpy as np
import onnx
import onnxruntime
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Gain(torch.nn.Module):
    def forward(self, x):
        return x * 0.1


x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).half()
torch.onnx.export(Gain(), (x,), "gain.onnx", dynamo=True, opset_version=20, verbose=False)
graph = onnx.load("gain.onnx").graph
for node in graph.node:
    print(node.op_type)
for tensor in graph.initializer:
    values = onnx.numpy_helper.to_array(tensor)
    print(f"constant {values.dtype} {float(values):.10f}")
session = onnxruntime.InferenceSession("gain.onnx")
(made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
torch_says = (x * 0.1).numpy()
wide = (x.float() * np.float32(0.1)).half().numpy()
narrow = (x.float() * float(np.float16(0.1))).half().numpy()
print("torch multiplies by the float32 factor:", np.array_equal(torch_says, wide))
print("the file multiplies by the rounded one:", np.array_equal(made, narrow))
print("other values of 1000:", int((made != torch_says).sum()))
PYTHON
env/bin/python seen.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
diff seen.txt - <<'EXPECTED'
Mul
constant float16 0.0999755859
torch multiplies by the float32 factor: True
the file multiplies by the rounded one: True
other values of 1000: 351
EXPECTED
echo "as described: torch $(env/bin/python -c 'import torch; print(torch.__version__)')"
