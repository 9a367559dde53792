"""Whole generators and the runtimes that people use: their images are compared first, then they are timed in turns."""
