"""Checkpoints: one safetensors file, weights plus a JSON configuration, checked before a tensor is read."""
