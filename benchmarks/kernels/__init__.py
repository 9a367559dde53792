"""Kernels against their peers: correctness first, then time, then the share of the measured limit."""
