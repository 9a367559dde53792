"""A forked process computes on one thread, because the threads of its parent's pools do not exist in it.

torch and the C++ kernels share the threads of GNU's OpenMP, which would wait for ever for the missing ones. Spawned
processes have all their threads.
"""

import os

import torch

__all__ = ["register"]


def register() -> None:
    """Let every process that is forked from this one compute on one thread."""
    if hasattr(os, "register_at_fork"):  # systems without fork lack it
        os.register_at_fork(after_in_child=_compute_alone)


def _compute_alone() -> None:
    # The native kernels enter torch's pool too, which then has only the caller's thread.
    torch.set_num_threads(1)
