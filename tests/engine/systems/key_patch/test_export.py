"""What is exported composes as the loaded model does, for any batch."""

from pathlib import Path

import numpy as np
import pytest

from zellige.engine.library import load
from zellige.engine.systems.key_patch.parts import PatchSet

from .tiny_key_patch import picture, written

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("flavour", ["portable", "fused"])
def test_an_exported_file_composes_the_same(flavour: str, tmp_path: Path) -> None:
    from zellige.export.onnx import export_onnx

    path = written(tmp_path / "faces.safetensors")
    report = export_onnx(path, tmp_path / "compose.onnx", task="compose", flavour=flavour)
    assert [one["name"] for one in report["outputs"]] == ["image", "mask", "composite"]
    assert report["inputs"][0] == {"name": "patches", "dtype": "uint8", "shape": ["N", 3, 64, 64, 3]}
    patches = np.stack([picture(k) for k in range(15)]).reshape(5, 3, 64, 64, 3)
    if flavour == "portable":
        session = onnxruntime.InferenceSession(tmp_path / "compose.onnx")
        image, mask, _ = session.run(None, {"patches": patches, "counts": np.ones((5, 3), np.float32)})
        made = load(path, "cpu", "fp32", rewrite=False).compose_all([PatchSet(some) for some in patches])
        assert np.abs(image.astype(int) - made.image).max() <= 1
        assert np.abs(mask.astype(int) - made.mask).max() <= 1
