"""Kernels compared with their peers: first correctness, then time, then the share of the measured limit."""
