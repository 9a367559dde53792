"""Checkpoints: safetensors files with weights and a JSON configuration, checked before a tensor is read."""
