"""What is exported composes as the loaded model does, for any batch."""

from pathlib import Path

import numpy as np
import pytest

from zellige.engine.library import load
from zellige.engine.systems.key_patch.parts import PatchSet
from zellige.errors import TaskError

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


def test_a_baseline_exports_its_picture_alone(tmp_path: Path) -> None:
    from zellige.export.network import task_network

    baseline = load(written(tmp_path / "b.safetensors", wiring="encoder", z_dim=3), "cpu", "fp32", rewrite=False)
    with pytest.raises(TaskError, match="no mask decoder, so that nothing composes by a mask; export its graph"):
        task_network(baseline, "compose", "image", "fp32")
    network = task_network(baseline, "picture", "image", "fp32")
    (image,) = network.module(*network.example(2).values())
    assert list(network.example(2)) == ["patches", "counts", "z"] and image.shape == (2, 64, 64, 3)
