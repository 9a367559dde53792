"""Check without a GPU that the kernels of all plugins run on all GPUs: compile every tactic and assemble its PTX.

    python -m zellige.export.plugins.assemble

Triton brings NVIDIA's assembler along. TensorRT uses the one in the driver, whose version may differ.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from zellige.errors import DeviceError, MissingExtraError

from .table import PLUGINS, Attributes, Plugin, Shapes
from .tactics import Code, codes

__all__ = ["EXAMPLES", "TARGETS", "assemble", "every_code"]

TARGETS = (80, 86, 89, 90, 100, 120)
_BLACKWELL = 100  # from this architecture on Triton has another assembler

# A node of each plugin. Channels-last maps are packed and sizes are multiples of 16.
EXAMPLES: dict[str, tuple[Shapes, Attributes]] = {
    "GluMoments": ({"x": (-1, 128, 32, 32)}, {"phases": 1}),
    "GluCombine": ({"moments": (4, -1, 16)}, {"eps": 1e-5}),
    "GluNormalise": ({"x": (-1, 128, 32, 32)}, {}),
    "PhaseGlu": ({"x": (-1, 512, 16, 16)}, {}),
    "PhaseAffine": ({"x": (-1, 256, 16, 16)}, {}),
    "AffineRelu": ({"x": (-1, 64, 32, 32)}, {"upsample": 1}),
    "MaskComposite": ({"foreground": (-1, 3, 32, 32)}, {"logits": 1}),
    "MaskCompositeBytes": ({"foreground": (-1, 3, 32, 32)}, {"logits": 1}),
    "Rearrange": ({"q": (-1, 64, 128), "k": (-1, 64, 128), "v": (-1, 64, 128)}, {"scale": 128**-0.5}),
}


def assemble(ptx: str, target: int) -> None:
    """Assemble PTX for a compute capability, such as 90, and forget the result.

    Raises:
        DeviceError: the assembler refuses the PTX.
        MissingExtraError: Triton, and with it the assembler, is not installed.
    """
    try:
        from triton import knobs
    except ImportError as error:
        raise MissingExtraError("triton", "assembling PTX", "cuda") from error
    tool = knobs.nvidia.ptxas_blackwell if target >= _BLACKWELL else knobs.nvidia.ptxas
    with TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx, encoding="utf-8")
        command = [tool.path, f"--gpu-name=sm_{target}", str(source), "-o", str(source.with_suffix(".cubin"))]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise DeviceError(f"sm_{target} does not take the PTX: {result.stderr.strip()}")


def every_code(plugins: tuple[Plugin, ...] = PLUGINS) -> Iterator[tuple[str, Code]]:
    """Yield the code of every tactic of the examples, after the name, dtype and layout of its plugin."""
    for plugin, dtype, layout in product(plugins, ("float32", "float16", "bfloat16"), ("planes", "channels_last")):
        shapes, attributes = EXAMPLES[plugin.name]
        if (plugin.maps or layout == "planes") and (plugin.inputs[0] not in plugin.factors or dtype == "float32"):
            for code in codes(plugin, dtype, layout, shapes, attributes):
                yield f"{plugin.name} {dtype} {layout}", code


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m zellige.export.plugins.assemble", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="assemblers at once")
    jobs = parser.parse_args().jobs
    try:
        with ThreadPoolExecutor(jobs) as pool:
            waiting = [pool.submit(assemble, code.ptx, target) for _, code in every_code() for target in TARGETS]
            for done in waiting:
                done.result()
    except (DeviceError, MissingExtraError) as error:
        print(f"zellige: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(waiting) // len(TARGETS)} kernels of plugins for {len(TARGETS)} architectures", file=sys.stderr)


if __name__ == "__main__":
    main()
