"""Whole generators against the runtimes that people use: compared first, then timed in turns."""
