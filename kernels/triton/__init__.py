"""What every kernel's triton.py stands on: tiles, tuning, and the variants that are built ahead of time."""
