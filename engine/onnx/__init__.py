"""Reads ONNX files without torch, and checks them before any runtime opens them."""
