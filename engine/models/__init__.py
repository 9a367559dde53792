"""The networks of the systems, in plain PyTorch, one file a system."""
