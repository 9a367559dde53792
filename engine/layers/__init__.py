"""Layers that several systems share, plain PyTorch."""
