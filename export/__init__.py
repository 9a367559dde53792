"""PyTorch to ONNX and TensorRT, each file checked against PyTorch."""
