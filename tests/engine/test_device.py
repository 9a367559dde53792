from pathlib import Path

import pytest
import torch

from zellige.engine.device import available_memory, cpu_has_bf16, pick_device, pick_precision
from zellige.errors import DeviceError

CPU = torch.device("cpu")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@without_cuda
def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    assert pick_device() == pick_device("auto") == pick_device("cpu") == CPU


@pytest.mark.gpu
def test_auto_takes_cuda_where_there_is_one() -> None:
    assert pick_device().type == "cuda"


@pytest.mark.gpu
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="there is no device 'cuda:99'; the last one here is cuda:"):
        pick_device("cuda:99")


@without_cuda
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_missing_cuda_device_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(DeviceError, match="no CUDA device that torch can use; use --device cpu"):
        pick_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "-1", "CPU!", "meta", "mps"])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=r"use auto, cpu or cuda$"):
        pick_device(name)


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precisions_of_a_cpu(name: str, dtype: torch.dtype) -> None:
    assert pick_precision(name, CPU) is dtype


def test_auto_takes_bf16_only_where_the_cpu_multiplies_in_it() -> None:
    assert pick_precision("auto", CPU) is (torch.bfloat16 if cpu_has_bf16() else torch.float32)


def test_half_precision_is_for_cuda() -> None:
    assert pick_precision("fp16", torch.device("cuda")) is torch.float16
    with pytest.raises(DeviceError, match=r"fp16 is not offered on a CPU.*; use fp32 or bf16"):
        pick_precision("fp16", CPU)


@pytest.mark.parametrize("name", ["", "fp8", "float32", "AUTO"])
def test_other_precisions_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"there is no precision '{name}'; use auto, fp32, fp16 or bf16"):
        pick_precision(name, CPU)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the whole of the memory is read from Linux's /proc")
def test_the_free_memory_is_some_of_the_memory() -> None:
    total = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1]) * 1024
    assert 0 < available_memory(CPU) <= total


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)]
)
def test_auto_takes_bf16_on_the_gpus_that_have_it_and_asks_the_given_one(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    given = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", {given: capability}.__getitem__)
    assert pick_precision("auto", given) is dtype


MIB = 2**20


def machine(root: Path, group: str, files: dict[str, int | str]) -> Path:
    """A machine with 1000 MiB free, its files by name, sizes in MiB; a stat is the page cache."""
    files = {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable:   {1000 * 1024} kB\n", "proc/self/cgroup": group} | files
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("memory.stat"):
            key = "total_" if "/memory/" in name else ""
            halves = f"{key}inactive_file {int(content) * MIB // 2}\n{key}active_file {int(content) * MIB // 2}\n"
            content = f"anon 77\nfile 99\n{halves}inactive_file_of_others 10\n"
        (root / name).write_text(str(content * MIB) if isinstance(content, int) else content)
    return root


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("group", "files", "free"),
    [
        ("0::/\n", {}, 1000),
        ("0::/\n", {f"{V2}/memory.max": "max\n", f"{V2}/memory.current": 900}, 1000),
        ("0::/\n", {f"{V2}/memory.max": 500, f"{V2}/memory.current": 200}, 300),
        ("0::/\n", {f"{V2}/memory.max": 500, f"{V2}/memory.current": 490, f"{V2}/memory.stat": 450}, 460),
        ("0::/\n", {f"{V2}/memory.max": 500, f"{V2}/memory.current": 501}, 0),
        (
            "0::/a/b\n",
            {
                f"{V2}/a/memory.max": 300, f"{V2}/a/memory.current": 200, f"{V2}/a/b/memory.max": 250,
                f"{V2}/a/b/memory.current": 100,
            },
            100,
        ),
        ("0::/not/mounted\n", {f"{V2}/memory.max": 500, f"{V2}/memory.current": 200}, 300),
        ("4:memory:/\n0::/\n", {f"{V1}/memory.limit_in_bytes": "9223372036854771712\n",
                                f"{V1}/memory.usage_in_bytes": 900}, 1000),
        (
            "9:name=systemd:/\n4:cpu,memory:/a\n",
            {
                f"{V1}/a/memory.limit_in_bytes": 500, f"{V1}/a/memory.usage_in_bytes": 490,
                f"{V1}/a/memory.stat": 400,
            },
            410,
        ),
    ],
    ids=["no files", "no limit", "a limit", "page cache", "beyond it", "nested", "in a container", "v1, none", "v1"],
)  # fmt: skip
def test_free_memory_in_control_groups(tmp_path: Path, group: str, files: dict[str, int | str], free: int) -> None:
    assert available_memory(CPU, machine(tmp_path, group, files)) == free * MIB


def test_a_large_file_that_was_written_leaves_memory_free(tmp_path: Path) -> None:
    group = {f"{V2}/memory.max": 500, f"{V2}/memory.current": 120, f"{V2}/memory.stat": 20}
    before = available_memory(CPU, machine(tmp_path, "0::/", group))
    group |= {f"{V2}/memory.current": 500, f"{V2}/memory.stat": 400}
    assert available_memory(CPU, machine(tmp_path, "0::/", group)) == before
