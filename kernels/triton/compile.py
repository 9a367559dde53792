"""Build Triton kernels ahead of time, on a machine without a GPU.

    python -m zellige.kernels.triton.compile --arch 80 --arch 90 --out build/kernels

The command writes a cubin and a PTX file for each variant and architecture, and `manifest.json`, which `launcher.py`
reads. PTX of an older architecture runs on every newer one; the driver translates it when it is loaded.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from zellige.errors import DeviceError, OutputError

from .variants import KERNELS, Variant, all_variants, variants_by_name

__all__ = ["compile_kernels", "compile_variant", "compile_variants"]

MANIFEST_VERSION = 2
# Constants that a kernel's code does not read: they tell calls apart in tuning, or decide shapes.
_OF_TUNING = ("SIZE", "VALUES", "ROWS", "LENGTH", "PARTS")
# KiB of shared memory that a program may take, by the generation of the architecture.
_SHARED = {8: 163, 9: 227, 10: 227, 12: 99}
# Bits of a parameter in PTX, by the type of its argument.
_BITS = {"i32": 32, "i64": 64, "fp32": 32}


def compile_kernels(
    out: Path, architectures: list[int], names: list[str] | None = None, jobs: int = 1
) -> dict[str, Any]:
    """Compile the variants of `variants.py` and write them with their manifest.

    Args:
        out: folder, made if it is missing; files of the same names are replaced.
        architectures: compute capabilities, such as 80 and 90.
        names: kernels, None for all.
        jobs: processes that compile.

    Returns:
        The manifest: `version`, `triton`, and `kernels`, a list of objects with `name`, `kernel`, `arch`, `entry`,
        `arguments` (name and type of each, in order), `hidden_pointers` (null pointers to pass after them),
        `constants`, `grid` (axes of pairs [size, divisor]: the product of the quotients, each rounded up, is the number
        of programs along an axis), `divisible_by_16`, `threads`, `stages`, `fp_fusion`, `shared_bytes`, and name and
        `sha256` of the files `cubin` and `ptx`.

    Raises:
        DeviceError: a kernel does not compile for an architecture, or its code has other parameters than its variant
            lists, or Triton interprets kernels in this process.
        OutputError: the folder cannot be written.
    """
    chosen = [(kernel, variant.name) for kernel, variant in all_variants(tuple(names) if names else KERNELS)]
    return compile_variants(out, architectures, chosen, jobs)


def compile_variants(
    out: Path, architectures: list[int], chosen: Iterable[tuple[str, str]], jobs: int = 1
) -> dict[str, Any]:
    """Compile variants, given as pairs of a kernel's and a variant's name; otherwise as `compile_kernels`."""
    import triton

    _require_a_compiler()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.") from error
    tasks = [(out, kernel, name, architecture) for kernel, name in chosen for architecture in architectures]
    if jobs > 1:
        # Processes are spawned, because torch may have threads by now, which a fork would lack.
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            entries = list(pool.map(_build, *zip(*tasks, strict=True), chunksize=4))
    else:
        entries = [_build(*task) for task in tasks]
    manifest = {"version": MANIFEST_VERSION, "triton": triton.__version__, "kernels": entries}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def _build(out: Path, kernel: str, name: str, architecture: int) -> dict[str, Any]:
    """Compile one variant, write its files, and return its entry of the manifest."""
    entry, code = compile_variant(kernel, variants_by_name(kernel)[name], architecture)
    files = {}
    for kind, content in code.items():
        file = f"{name}.sm_{architecture}.{kind}"
        (out / file).write_bytes(content)
        files[kind] = {"file": file, "sha256": hashlib.sha256(content).hexdigest()}
    return {**entry, **files}


def compile_variant(
    kernel: str, variant: Variant, architecture: int, ptx_version: int | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Compile one variant.

    Args:
        kernel: name of the kernel's folder.
        variant: a variant of `variants.py`, or one made from it with other constants.
        architecture: compute capability, such as 80.
        ptx_version: of the PTX, such as 80 for 8.0; None takes the newest that Triton's assembler reads.

    Returns:
        The variant's entry in the manifest, without files, and the code by kind, "cubin" and "ptx".

    Raises:
        DeviceError: the variant does not compile, or its code has other parameters than it lists, or Triton interprets
            kernels here.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    _require_a_compiler()
    order = {argument: place for place, argument in enumerate(variant.jitted.arg_names)}
    constants = {**{argument: 0 for argument in _OF_TUNING if argument in order}, **variant.constants}
    signature = {**variant.types, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(
        fn=variant.jitted,
        signature={argument: signature[argument] for argument in order},
        constexprs=constants,
        attrs={(order[argument],): [["tt.divisibility", 16]] for argument in variant.divisible},
    )
    options = {
        "num_warps": variant.warps, "num_stages": variant.stages, "enable_fp_fusion": variant.fp_fusion,
        "ptx_version": ptx_version,
    }  # fmt: skip
    arguments = [[argument, variant.types[argument]] for argument in order if argument in variant.types]
    try:
        built = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
        hidden = _hidden_pointers(built.asm["ptx"], [kind for _, kind in arguments])
        if built.metadata.shared > 1024 * _SHARED.get(architecture // 10, 48):
            raise ValueError(f"it needs {built.metadata.shared} bytes of shared memory.")
    except Exception as error:
        raise DeviceError(f"{variant.name} does not compile for sm_{architecture}: {error}") from error
    entry = {
        "name": variant.name,
        "kernel": kernel,
        "arch": architecture,
        "entry": built.metadata.name,
        "arguments": arguments,
        "hidden_pointers": hidden,
        "constants": dict(variant.constants),
        "grid": variant.axes(),
        "divisible_by_16": list(variant.divisible),
        "threads": 32 * variant.warps,
        "stages": variant.stages,
        "fp_fusion": variant.fp_fusion,
        "shared_bytes": built.metadata.shared,
    }
    return entry, {"cubin": built.asm["cubin"], "ptx": built.asm["ptx"].encode()}


def _require_a_compiler() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise DeviceError("TRITON_INTERPRET is 1: Triton would not compile; unset it before zellige is imported.")


def _hidden_pointers(ptx: str, kinds: list[str]) -> int:
    """Count the parameters that follow the arguments in a PTX file's entry; the arguments must be the variant's."""
    declared = re.search(r"\.entry\s+\w+\((.*?)\)", ptx, re.DOTALL)
    parameters = re.findall(r"\.param\s+\.[a-z](\d+)(\s+\.ptr)?", declared[1] if declared else "")
    found = [(int(bits), bool(pointer)) for bits, pointer in parameters]
    expected = [(64, True) if kind.startswith("*") else (_BITS[kind], False) for kind in kinds]
    if found[: len(expected)] != expected or any(parameter != (64, True) for parameter in found[len(expected) :]):
        raise ValueError(f"its parameters are {found}, those of its variant {expected}.")
    return len(found) - len(expected)


def main() -> None:
    """Run the command."""
    # Triton reads both when it is imported. Line numbers would put this machine's paths into the files.
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DISABLE_LINE_INFO", "1")
    parser = argparse.ArgumentParser(
        "python -m zellige.kernels.triton.compile", description="Build kernels ahead of time."
    )
    parser.add_argument("--arch", type=int, action="append", help="compute capability, such as 80; may be repeated")
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="only these; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build/kernels"), help="folder of the files")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that compile")
    arguments = parser.parse_args()
    try:
        manifest = compile_kernels(arguments.out, arguments.arch or [80, 90], arguments.kernel, arguments.jobs)
    except (DeviceError, OutputError) as error:
        print(f"zellige: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(manifest['kernels'])} kernels in {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
