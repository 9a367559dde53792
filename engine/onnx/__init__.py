"""ONNX files, read and checked without torch before any runtime gets them."""
