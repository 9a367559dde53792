"""A forked process computes on one thread, because the threads of its parent's pools do not exist in it.

GNU's OpenMP, whose threads torch and the C++ kernels share, would wait for them for ever. Spawned processes have all
their threads.
"""

import os

import torch

__all__ = ["register"]


def register() -> None:
    """Let every process that is forked from this one compute on one thread."""
    if hasattr(os, "register_at_fork"):  # systems without fork lack it
        os.register_at_fork(after_in_child=_compute_alone)


def _compute_alone() -> None:
    # The native kernels enter torch's pool, which has one thread then: the caller's own.
    torch.set_num_threads(1)
