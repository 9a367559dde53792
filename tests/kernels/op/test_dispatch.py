"""The native kernels run on torch's threads, whatever other OpenMP libraries the process holds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = """
import ctypes, os, sys
{first}
import torch
{second}
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
@pytest.mark.parametrize("when", ["first", "second"])
def test_no_second_pool_starts_beside_torchs(when, tmp_path):
    (library,) = Path(torch.__file__).parent.glob("lib/libgomp*")
    copy = tmp_path / "libgomp-of-another-package.so"
    shutil.copy(library, copy)
    load = {"first": "", "second": ""} | {when: f"ctypes.CDLL({str(copy)!r})"}
    found = subprocess.run([sys.executable, "-c", PROGRAM.format(**load)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0"
