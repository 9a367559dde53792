"""The native kernels run on torch's threads, whatever other OpenMP libraries the process holds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = """
import ctypes, os, sys
import torch
ctypes.CDLL({copy!r})
torch.set_num_threads(2)
x = torch.ones(4, 16, 128, 128)
torch.relu(x)
before = len(os.listdir("/proc/self/task"))
from zellige.kernels import affine_relu
factors = torch.ones(4, 16)
affine_relu(x, factors, factors, backend="native")
assert before > 1
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_second_pool_starts_beside_torchs(tmp_path):
    (library,) = Path(torch.__file__).parent.glob("lib/libgomp*")
    copy = tmp_path / "libgomp-of-another-package.so"
    shutil.copy(library, copy)
    command = [sys.executable, "-c", PROGRAM.format(copy=str(copy))]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0"
