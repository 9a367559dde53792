"""The foundation of every kernel's triton.py: tiles, tuning, and the variants that are built ahead of time."""
