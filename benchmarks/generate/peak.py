"""The memory of a runner, measured in a process of its own, because it would reuse memory that another one freed."""

import gc
import json
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from ...engine.panorama.memory import measured_peak, resident_bytes
from ..kernels.exported import Unmeasured
from .peers import make_runner
from .subjects import subject_of
from .timing import prepare

__all__ = ["peak_bytes"]

_CALLS = 3


def peak_bytes(model: str, device: torch.device, runner: str, precision: str, batch: int, folder: Path) -> int | None:
    """Return the most memory that a runner adds to a process with its packages: weights, plans, buffers of a call.

    Memory that was needed to get ready and is free again does not count. On CUDA devices it is the memory that torch's
    allocator reserves. TensorRT allocates by itself and keeps its memory, so there it is the loss of free memory.

    Args:
        model: as for `subject_of`.
        device: the device to run on.
        runner, precision, batch, folder: as for `make_runner`; the folder has the graphs.
    Returns:
        bytes; None if the runner raised an error, which `make_runner` will raise in this process too.
    Raises:
        Unmeasured: a signal ended the process; in this process it would end the benchmark.
    """
    job = [model, str(device), runner, precision, batch, str(folder), torch.get_num_threads()]
    command = [sys.executable, "-m", __name__, json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode < 0:
        raise Unmeasured(f"{runner}: a process with it alone was ended by {signal.Signals(-done.returncode).name}")
    with suppress(ValueError, IndexError):
        return int(done.stdout.split()[-1])
    return None


def _measure(model: str, device_name: str, name: str, precision: str, batch: int, folder: str, threads: int) -> int:
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    prepare(device)
    _load_packages(name, device)
    before = resident_bytes()
    with torch.no_grad():
        subject = subject_of(model, device)
        free = _free(device)
        runner = make_runner(name, subject, precision, batch, Path(folder))
        runner.call()
        if name == "tensorrt":
            return free - _free(device)
        del subject
        gc.collect()
        with measured_peak(device) as peak:
            held = resident_bytes() - before
            for _ in range(_CALLS):
                runner.call()
    return peak.bytes + (max(held, 0) if device.type == "cpu" else 0)


def _free(device: torch.device) -> int:
    """Return the free bytes of a CUDA device; 0 for other devices."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def _load_packages(runner: str, device: torch.device) -> None:
    if runner in ("onnxruntime", "openvino"):
        import_module(runner)
    elif runner == "compile":
        with torch.no_grad():
            torch.compile(torch.nn.Linear(8, 8).to(device))(torch.ones(8, 8, device=device))


if __name__ == "__main__":
    print(_measure(*json.loads(sys.argv[1])))
