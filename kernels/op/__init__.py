"""What every kernel's op.py stands on: dispatch, validation, layout, gradients, precision."""
