"""The panorama benchmark: what it reports, not how fast anything is."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.library import load
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.generator import Generator

pytest.importorskip("tifffile")

from zellige.benchmarks.generate.subjects import REFERENCES
from zellige.benchmarks.panorama import measure, measure_against, measure_workers, panoramic


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Two rounds of two turns of a tiny model."""
    folder = tmp_path_factory.mktemp("benchmark")
    model = load(tiny(folder), device="cpu", precision="fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return measure(model, width=64, height=None, memory="1GiB", seed=3, rounds=2) | {"left": list(folder.iterdir())}


def tiny(folder: Path) -> Path:
    config = CocoGanConfig(topology="cylinder", rows=4, columns=8, patch=4, latent=4, width=1, critic_width=1)
    torch.manual_seed(0)
    state = {f"generator.{name}": value for name, value in Generator(config, spectral=False).state_dict().items()}
    state = {name: value for name, value in state.items() if value.is_floating_point()}
    path = folder / "tiny.safetensors"
    write_checkpoint(path, state, system="coco-gan", config=config.model_dump(mode="json"))
    return path


def test_report_says_what_was_rendered(report):
    # Two turns of 4 x 8 patches, at every half step and one more on each side of the picture.
    expected = {"model": "tiny", "width": 64, "height": 16, "patches": 4 * 33, "rounds": 2, "seed": 3, "device": "cpu"}
    assert report.items() >= expected.items()
    assert (report["precision"], report["memory_budget_bytes"]) == ("fp32", 2**30)


def test_shares_are_positive_and_one_a_round(report):
    assert len(report["shares"]) == 2
    assert all(share > 0 for share in report["shares"])
    assert min(report["shares"]) <= report["render_share_of_generator"] <= max(report["shares"])


def test_rates_are_positive(report):
    names = ("generator_patches_per_second", "render_patches_per_second", "megapixels_per_second", "seconds", "batch")
    assert all(report[name] > 0 for name in names)


def test_conditions_are_stated_with_the_figures(report):
    named = {"date", "command", "processor", "cores", "threads", "gpu", "system", "versions"}
    assert report["conditions"].keys() == named
    assert report["conditions"]["versions"].keys() == {"torch", "numpy", "python"}


def test_report_is_json(report):
    text = {name: value for name, value in report.items() if name != "left"}
    assert json.loads(json.dumps(text)) == text


def test_rendered_files_are_removed(report):
    assert [Path(path).name for path in report["left"]] == ["tiny.safetensors"]


def test_workers_are_compared_with_one_process_a_core(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    found = measure_workers(str(tiny(tmp_path)), 2, 16384, None, "1GiB", 3, 1, device="cpu", precision="fp32")
    rates = found["pixels_per_second_a_core"]
    assert found["ratios"] == [found["ratio"]] == [pytest.approx(rates["workers"] / rates["one"])]
    assert found["conditions"]["threads"] == 1 and torch.get_num_threads() == threads
    assert (found["workers"], found["width"], found["rounds"]) == (2, 16384, 1) and found["seconds_start"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_two_ways_take_turns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = {"patch": 4, "rows": 3, "columns": 4, "width": 1, "latent": 4}
    dense = fields | {"dense": True, "padding": "none"}
    system = REFERENCES["coco-gan-256"]
    tiny = dataclasses.replace(system, references={"tiny": fields, "tiny-dense": dense})
    monkeypatch.setitem(REFERENCES, "tiny", tiny)
    monkeypatch.setitem(REFERENCES, "tiny-dense", tiny)
    ours, theirs = (panoramic(name, "cpu", "fp32") for name in ("tiny-dense", "tiny"))
    for other, named in ((theirs, {"model": "tiny"}), (None, {"model": "tiny-dense", "blend": "half-step"})):
        found = measure_against(ours, other, 48, None, "1GiB", 0, 2)
        assert found["against"].items() >= (named | {"width": 48, "height": 12}).items()
        assert len(found["ratios"]) == 2 and min(found["ratios"]) <= found["ratio"] <= max(found["ratios"])
        assert found["against"]["patches"] > found["patches"] > 0
