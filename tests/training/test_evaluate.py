"""Reports are JSON, and are written into models of one's own."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.engine.library import BUNDLED
from zellige.errors import DataError, TaskError
from zellige.training.evaluate import as_json, record_metrics

INFINITE = float("inf")


def test_an_infinite_ratio_is_none_and_said_to_be_missing() -> None:
    report = as_json({"seam_ratio": {"vertical": INFINITE, "horizontal": 1.0}, "single": [0.5, INFINITE], "count": 2})
    assert report == {
        "seam_ratio": {"vertical": None, "horizontal": 1.0}, "single": [0.5, None], "count": 2,
        "missing": {"the ratio is infinite": ["seam_ratio.vertical", "single"]},
    }  # fmt: skip
    json.dumps(report, allow_nan=False)


def test_what_is_missing_already_stays_so() -> None:
    report = as_json({"missing": {"no masks": ["iou"]}, "ratio": INFINITE})
    assert report["missing"] == {"no masks": ["iou"], "the ratio is infinite": ["ratio"]}


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(DataError, match="seam_ratio.vertical came out as not a number"):
        as_json({"seam_ratio": {"vertical": float("nan")}})


class TestRecording:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Path:
        return Path(shutil.copy(BUNDLED / "planet.safetensors", tmp_path / "own.safetensors"))

    def test_the_weights_and_other_details_stay(self, own: Path) -> None:
        before = read_header(own)
        tensors = {name: tensor.clone() for name, tensor in read_tensors(before).items()}
        record_metrics(before, {"diversity": 1.0})
        after = read_header(own)
        assert after.details == before.details | {"metrics": {"diversity": 1.0}}
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in read_tensors(after).items())

    @pytest.mark.parametrize("by", ["name", "link"])
    def test_a_bundled_model_is_not_written_to(self, by: str, tmp_path: Path) -> None:
        path = BUNDLED / "planet.safetensors"
        before = path.read_bytes()
        if by == "link":
            (tmp_path / "link.safetensors").symlink_to(path)
            path = tmp_path / "link.safetensors"
        with pytest.raises(TaskError, match="is a bundled model, whose file belongs to the package; copy .* elsewhere"):
            record_metrics(read_header(path), {"diversity": 1.0})
        assert (BUNDLED / "planet.safetensors").read_bytes() == before
