"""Data, losses, one loop, one recipe file a system, metrics."""
