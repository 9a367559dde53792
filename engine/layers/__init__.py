"""Layers in plain PyTorch that several systems share, and rules for all of them."""
