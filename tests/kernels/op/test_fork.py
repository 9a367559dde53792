"""A child that is forked after the parent's threads started computes the same, and does not wait for them."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, torch, zellige
from zellige.kernels import affine_relu
torch.set_num_threads(2)
model = zellige.load("planet", "cpu", "bf16", rewrite=False)
x, factors = torch.randn(8, 32, 128, 128), torch.ones(8, 32)
y, images = affine_relu(x, factors, factors, backend="native"), model.generate(1, seed=1)
child = os.fork()
if child == 0:
    signal.alarm(60)  # whoever waits for ever is ended
    same = torch.equal(affine_relu(x, factors, factors, backend="native"), y)
    same = same and (model.generate(1, seed=1) == images).all()
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_and_its_parent_keeps_its_threads():
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "2"]
