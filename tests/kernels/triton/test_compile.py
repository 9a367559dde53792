"""Every Triton kernel is built for GPUs that are not here, and the launcher finds what was built."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zellige.errors import CheckpointError, DeviceError, ShapeError
from zellige.kernels.triton.compile import main
from zellige.kernels.triton.launcher import CompiledKernels
from zellige.kernels.triton.variants import KERNELS, all_variants

ROOT = Path(__file__).parents[3]
NAME = "affine_relu_bfloat16_channels_last"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zellige.kernels.triton.compile", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


# One variant of each jitted function, and one kernel for a second architecture too; `make kernels` builds them all.
SAMPLE = """
import json, sys
from pathlib import Path
from zellige.kernels.triton.variants import all_variants
from zellige.kernels.triton.compile import compile_variants
chosen = {}
for kernel, variant in all_variants():
    chosen.setdefault(variant.jitted, (kernel, variant.name))
out, name = Path(sys.argv[1]), "affine_relu_bfloat16_channels_last"
named = [("affine_relu", name), ("affine_relu", f"{name}_wide")]
manifests = compile_variants(out, [90], chosen.values()), compile_variants(out, [80, 90], named)
every = [entry for manifest in manifests for entry in manifest["kernels"]]
(out / "manifest.json").write_text(json.dumps({**manifests[0], "kernels": every}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    # A cache of its own: kernels that were compiled before would prove nothing.
    cache = str(tmp_path_factory.mktemp("cache"))
    environment = os.environ | {"TRITON_CACHE_DIR": cache, "TRITON_INTERPRET": "0", "TRITON_DISABLE_LINE_INFO": "1"}
    subprocess.run([sys.executable, "-c", SAMPLE, str(folder)], env=environment, check=True)
    return folder


@pytest.fixture(scope="module")
def entries(built: Path) -> list[dict[str, Any]]:
    return json.loads((built / "manifest.json").read_text())["kernels"]


def array(address: int = 0) -> Any:
    """Something that lies on a device, as far as the launcher looks."""
    return SimpleNamespace(data=SimpleNamespace(ptr=address))


def test_every_folder_with_a_triton_kernel_is_built(entries):
    folders = {path.parent.name for path in (ROOT / "kernels").glob("*/triton.py")}
    assert set(KERNELS) == folders == {entry["kernel"] for entry in entries} and len(folders) >= 9
    assert {kernel for kernel, _ in all_variants()} == folders


def test_every_kernel_that_is_launched_is_built(entries):
    for folder in KERNELS:
        source = (ROOT / "kernels" / folder / "triton.py").read_text()
        jitted = set(re.findall(r"@triton\.jit\ndef (\w+)\(", source))
        called = {name for name in jitted if re.search(rf"(?<!def )\b{name}\(", source)}
        assert {entry["entry"] for entry in entries if entry["kernel"] == folder} == jitted - called


def test_a_variant_is_there_for_every_architecture_that_was_asked_for(entries):
    for name in (NAME, f"{NAME}_wide"):
        assert [entry["arch"] for entry in entries if entry["name"] == name] == [80, 90]


def test_the_parameters_of_the_code_are_the_arguments_of_the_manifest(built, entries):
    bits = {"i32": (32, False), "i64": (64, False), "fp32": (32, False)}
    for entry in entries:
        ptx = (built / entry["ptx"]["file"]).read_text()
        declared = ptx.split(f".entry {entry['entry']}(")[1].split(")")[0]
        found = [(int(size), bool(pointer)) for size, pointer in re.findall(r"\.param \.\w(\d+)( \.ptr)?", declared)]
        listed = [bits.get(kind, (64, True)) for _, kind in entry["arguments"]]
        assert found == listed + [(64, True)] * entry["hidden_pointers"]


def test_files_are_code_for_their_architecture(built, entries):
    for entry in entries:
        assert (built / entry["cubin"]["file"]).read_bytes()[:4] == b"\x7fELF"
        ptx = (built / entry["ptx"]["file"]).read_text()
        assert f".target sm_{entry['arch']}" in ptx
        assert f".entry {entry['entry']}(" in ptx
        assert str(ROOT) not in ptx


def test_grids_are_made_of_arguments_and_named_sizes(entries):
    for entry in entries:
        assert 1 <= len(entry["grid"]) <= 3
        assert all(divisor >= 1 for axis in entry["grid"] for _, divisor in axis)
        assert entry["hidden_pointers"] in (0, 1, 2)


def test_wide_loads_are_really_wide(built):
    scalar, wide = ((built / f"{NAME}{kind}.sm_90.ptx").read_text() for kind in ("", "_wide"))
    vector = re.compile(r"(ld|st)\.global\.v[248]")
    assert vector.search(wide)
    assert not vector.search(scalar)


def test_the_launcher_takes_wide_loads_where_addresses_and_sizes_allow(built):
    kernels = CompiledKernels(built, arch=90)
    sizes = {"scale": array(), "shift": array(), "pixels": 5, "columns": 5}
    aligned = {"x": array(256), "y": array(512), "channels": 64} | sizes
    assert kernels.choose(NAME, aligned)["name"] == f"{NAME}_wide"
    for change in ({"x": array(8)}, {"y": array(2)}, {"channels": 63}):
        assert kernels.choose(NAME, aligned | change)["name"] == NAME


def test_addresses_are_refused_where_there_are_wide_loads_only(built):
    arguments = {name: array(8 if name == "k" else 256) for name in ("q", "k", "v", "log_sums", "y")}
    with pytest.raises(ShapeError, match="needs multiples of 16, addresses in bytes: q, k, v, log_sums, y."):
        CompiledKernels(built, arch=90).choose("rearrange_forward_float32_128_128", arguments)


@pytest.mark.parametrize(("arch", "chosen"), [(80, 80), (86, 80), (90, 90), (120, 90)])
def test_the_launcher_takes_the_newest_code_that_runs(built, arch, chosen):
    arguments = dict.fromkeys(("x", "scale", "shift", "y"), array()) | dict.fromkeys(
        ("channels", "pixels", "columns"), 1
    )
    assert CompiledKernels(built, arch=arch).choose(NAME, arguments)["arch"] == chosen


def test_older_devices_are_refused(built):
    with pytest.raises(DeviceError, match="holds no affine_relu_bfloat16_channels_last for sm_75"):
        CompiledKernels(built, arch=75).choose(NAME, {})


def test_missing_arguments_are_named(built):
    kernels = CompiledKernels(built, arch=90)
    with pytest.raises(ShapeError, match="takes channels, columns, pixels, scale, shift, x, y; got x"):
        kernels.launch(NAME, {"x": array()})
    arguments = dict.fromkeys(("x", "scale", "shift", "y"), array()) | dict.fromkeys(
        ("channels", "pixels", "columns"), 1
    )
    with pytest.raises(ShapeError, match="needs the size 'samples'"):
        kernels.launch(NAME, arguments)


def test_a_changed_file_is_refused(built, tmp_path):
    manifest = (built / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / f"{NAME}.sm_90.cubin").write_bytes(b"\x7fELF, but another one")
    arguments = dict.fromkeys(("x", "scale", "shift", "y"), array(1)) | dict.fromkeys(
        ("channels", "pixels", "columns"), 1
    )
    with pytest.raises(CheckpointError, match="not the file that its manifest describes"):
        CompiledKernels(tmp_path, arch=90).launch(NAME, arguments, {"samples": 1})
    (tmp_path / f"{NAME}.sm_90.cubin").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        CompiledKernels(tmp_path, arch=90).launch(NAME, arguments, {"samples": 1})


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"version": 1, "kernels": []}'])
def test_a_bad_manifest_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError):
        CompiledKernels(tmp_path)


def test_the_launcher_needs_neither_torch_nor_triton():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['triton'] = None\n"
        "from zellige.kernels.triton.launcher import CompiledKernels\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unwritable_folder_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for name in ("TRITON_INTERPRET", "TRITON_DISABLE_LINE_INFO"):  # the command sets both
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "argv", ["compile", "--out", str(tmp_path / "file"), "--kernel", "feather_blend"])
    with pytest.raises(SystemExit, match="^2$"):
        main()
    assert capsys.readouterr().err == f"zellige: {tmp_path / 'file'} cannot be written: File exists.\n"


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [64, 63])
def test_gpu_runs_what_was_built(tmp_path, channels):
    cupy = pytest.importorskip("cupy")
    import numpy as np

    capability = int(cupy.cuda.Device().compute_capability)
    result = run("--arch", str(capability), "--kernel", "affine_relu", "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    x = cupy.random.standard_normal((2, 5, 7, channels), dtype=cupy.float32)
    scale, shift = (cupy.random.standard_normal((2, channels), dtype=cupy.float32) for _ in range(2))
    y = cupy.empty_like(x)
    arguments = {"x": x, "scale": scale, "shift": shift, "y": y, "channels": channels, "pixels": 35, "columns": 7}
    CompiledKernels(tmp_path).launch("affine_relu_float32_channels_last", arguments, {"samples": 2})
    expected = cupy.maximum(x * scale[:, None, None] + shift[:, None, None], 0)
    np.testing.assert_allclose(y.get(), expected.get(), rtol=1e-6, atol=1e-6)
