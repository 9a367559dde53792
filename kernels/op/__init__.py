"""The foundation of every kernel's op.py: dispatch, validation, layout, gradients, precision."""
