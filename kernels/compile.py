"""Build Triton kernels ahead of time, on a machine without a GPU.

    python -m zellige.kernels.compile --arch 80 --arch 90 --out build/kernels

writes a cubin and a PTX file for each variant and architecture, and `manifest.json`, which `launcher.py` reads. PTX of
an older architecture runs on every newer one, translated when it is loaded.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from zellige.errors import DeviceError, OutputError

__all__ = ["compile_kernels"]

MANIFEST_VERSION = 1


def compile_kernels(out: Path, architectures: list[int], names: list[str] | None = None) -> dict[str, Any]:
    """Compile the variants of `ahead.py` and write them with their manifest.

    Args:
        out: folder, made when missing; what it holds is replaced where names are equal.
        architectures: compute capabilities, such as 80 and 90.
        names: kernels, None for all.

    Returns:
        The manifest: `version`, `triton`, and `kernels`, a list of objects with `name`, `kernel`, `arch`, `entry`,
        `arguments` (name and type of each, in order), `hidden_pointers` (null pointers to pass after them),
        `constants`, `grid`, `divisible_by_16`, `threads`, `shared_bytes`, and of the files `cubin` and `ptx` their
        names and `sha256`.

    Raises:
        DeviceError: a kernel does not compile for an architecture, or Triton interprets kernels in this process.
        OutputError: the folder cannot be written.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from .ahead import KERNELS, all_variants

    if os.environ.get("TRITON_INTERPRET") == "1":
        raise DeviceError("TRITON_INTERPRET is 1: Triton would not compile; unset it before zellige is imported.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.") from error
    entries: list[dict[str, Any]] = []
    for kernel, variant in all_variants(tuple(names) if names else KERNELS):
        signature = variant.types | dict.fromkeys(variant.constants, "constexpr")
        order = {name: place for place, name in enumerate(variant.function.arg_names)}
        source = ASTSource(
            fn=variant.function,
            signature={name: signature[name] for name in order},
            constexprs=variant.constants,
            attrs={(order[name],): [["tt.divisibility", 16]] for name in variant.divisible},
        )
        for architecture in architectures:
            options = {"num_warps": variant.warps, "num_stages": variant.stages, "enable_fp_fusion": False}
            try:
                built = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
            except Exception as error:
                raise DeviceError(f"{variant.name} does not compile for sm_{architecture}: {error}") from error
            files = {}
            for kind in ("cubin", "ptx"):
                content = built.asm[kind]
                content = content if isinstance(content, bytes) else content.encode()
                name = f"{variant.name}.sm_{architecture}.{kind}"
                (out / name).write_bytes(content)
                files[kind] = {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
            entries.append(
                {
                    "name": variant.name,
                    "kernel": kernel,
                    "arch": architecture,
                    "entry": built.metadata.name,
                    "arguments": [[name, variant.types[name]] for name in order if name in variant.types],
                    "hidden_pointers": _parameters(built.asm["ptx"]) - len(variant.types),
                    "constants": variant.constants,
                    "grid": [list(axis) for axis in variant.grid],
                    "divisible_by_16": list(variant.divisible),
                    "threads": 32 * variant.warps,
                    "shared_bytes": built.metadata.shared,
                    **files,
                }
            )
    manifest = {"version": MANIFEST_VERSION, "triton": triton.__version__, "kernels": entries}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def _parameters(ptx: str) -> int:
    """Count the parameters of the one entry in a PTX file."""
    declared = re.search(r"\.entry\s+\w+\((.*?)\)", ptx, re.DOTALL)
    return declared[1].count(".param") if declared else 0


def main() -> None:
    """Run the command."""
    # Read when Triton is imported. Line numbers would put this machine's paths into the files.
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DISABLE_LINE_INFO", "1")
    from .ahead import KERNELS

    parser = argparse.ArgumentParser("python -m zellige.kernels.compile", description="Build kernels ahead of time.")
    parser.add_argument("--arch", type=int, action="append", help="compute capability, such as 80; may be repeated")
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="only these; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build/kernels"), help="folder of the files")
    arguments = parser.parse_args()
    try:
        manifest = compile_kernels(arguments.out, arguments.arch or [80, 90], arguments.kernel)
    except (DeviceError, OutputError) as error:
        print(f"zellige: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(manifest['kernels'])} kernels in {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
