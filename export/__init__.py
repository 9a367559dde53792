"""Export of models from PyTorch to ONNX and TensorRT; every file is checked against PyTorch."""
