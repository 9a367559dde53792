import copy
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zellige.engine.layers.precision import cast_maps
from zellige.engine.library import load, load_task
from zellige.engine.rewrite.for_onnx import rewrite_for_graphs
from zellige.engine.runtimes import Usage
from zellige.engine.runtimes.buckets import cover
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.engine.systems.coco_gan.graph_patches import GraphPatches, exported_patches
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import BudgetError

ModelFile, Opened = Callable[..., Path], Callable[[str], tuple[CocoGan, CocoGan]]

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def opened(model_file: ModelFile) -> Callable[[str], tuple[CocoGan, CocoGan]]:
    """The same model by torch and by ONNX Runtime, opened and exported once."""

    @cache
    def by_both(name: str) -> tuple[CocoGan, CocoGan]:
        ours, theirs = (load(model_file(name), "cpu", "fp32", runtime=runtime) for runtime in ("torch", "onnx"))
        assert isinstance(ours, CocoGan) and isinstance(theirs, CocoGan)
        return ours, theirs

    return by_both


def furthest(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("name", ["cylinder", "dense"])
def test_images_are_those_of_torch_to_a_level(opened: Opened, name: str) -> None:
    ours, theirs = opened(name)
    images = ours.generate(3, seed=1)
    assert images.std() > 5
    assert furthest(images, theirs.generate(3, seed=1)) <= 1


def test_panoramas_are_those_of_torch_to_a_level(opened: Opened, tmp_path: Path) -> None:
    ours, theirs = opened("dense")
    width = 3 * ours.size[1]
    for model, file in ((ours, "ours.png"), (theirs, "theirs.png")):
        report = model.panorama(tmp_path / file, width=width, memory="256MiB", seed=2)
        assert report["width"] == width
    first, second = (np.asarray(Image.open(tmp_path / file)) for file in ("ours.png", "theirs.png"))
    assert first.shape == second.shape and furthest(first, second) <= 1


def test_models_are_opened_with_it_by_name(opened: Opened) -> None:
    model = opened("dense")[1]
    assert (model.precision, model.choices) == ("fp32", [])


def test_a_model_that_runs_by_it_can_be_pickled(opened: Opened) -> None:
    model = opened("cylinder")[1]
    model.generate(1)
    assert pickle.loads(pickle.dumps(model)).config == model.config


class Card:
    """A runtime of fixed batches with some memory, of which a block takes a byte; patches are their coordinates."""

    name, lends, usage = "card", False, Usage()

    def __init__(self, sizes: Sequence[int], memory: int | None, bytes_: bool = False) -> None:
        self.device, self.sizes, self.memory, self.bytes = torch.device("cuda"), sorted(sizes), memory, bytes_
        self.warmed: list[int] = []

    def run(self, inputs: Any, *, host: bool = True) -> Any:
        for batch in cover(len(inputs[1]), self.sizes):
            rows = inputs[1][batch.start : batch.start + batch.count, :, None, None].expand(-1, -1, 2, 2)
            yield batch.start, rows.permute(0, 2, 3, 1).to(torch.uint8) if self.bytes else rows

    def warm(self, counts: Any, example: Sequence[Tensor]) -> None:
        assert [len(rows) for rows in example] == [1, 1]
        self.warmed += counts
        if self.memory is not None and max(self.sizes) > self.memory:
            raise BudgetError("the card is full")


def card_of(config: Any, bytes_: bool = False) -> tuple[GraphPatches, list[Card]]:
    cards: list[Card] = []

    def opened(block: Any, cells: Any, sizes: Sequence[int], memory: int | None) -> Card:
        cards.append(Card(sizes, memory, bytes_))
        return cards[-1]

    return GraphPatches(opened, config, torch.device("cuda")), cards


def places(count: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(count, 6), torch.arange(count * 3).reshape(count, 3).float()


def test_batches_of_images_pad_little(model_file: ModelFile) -> None:
    patches, cards = card_of(load_task("panorama", model_file("dense"), "cpu", "fp32").config)
    found = patches(*places(5), (1, 1))
    assert torch.equal(found[:, :, 0, 0], places(5)[1])
    patches(*places(70), (1, 1))
    assert [card.sizes for card in cards] == [[8, 32, 128]]
    patches(*places(2), (3, 4))
    assert [card.sizes for card in cards[1:]] == [[1, 3, 10]]


def test_a_copy_opens_runtimes_of_its_own(model_file: ModelFile) -> None:
    patches, cards = card_of(load_task("panorama", model_file("dense"), "cpu", "fp32").config)
    expected = patches(*places(5), (1, 1))
    assert torch.equal(copy.deepcopy(patches)(*places(5), (1, 1)), expected) and len(cards) == 2


def test_a_whole_picture_has_one_batch_that_fits_its_memory(model_file: ModelFile) -> None:
    patches, cards = card_of(load_task("panorama", model_file("dense"), "cpu", "fp32").config)
    run, batch = patches.prepared((1, 1), (), 37, memory=10)
    assert batch == 9 and [(card.sizes, card.warmed) for card in cards] == [([n], [n]) for n in (37, 18, 9)]
    assert torch.equal(run(*places(20), (1, 1))[:, :, 1, 1], places(20)[1])
    assert patches.prepared((1, 1), (), 37, memory=10)[1] == 9 and len(cards) == 3


def test_a_memory_in_which_no_patch_fits_is_refused(model_file: ModelFile) -> None:
    patches, cards = card_of(load_task("panorama", model_file("dense"), "cpu", "fp32").config)
    with pytest.raises(BudgetError, match="^the card is full$"):
        patches.prepared((1, 1), (), 4, memory=0)
    assert [card.sizes for card in cards] == [[4], [2], [1]]


def test_bytes_become_maps(model_file: ModelFile) -> None:
    patches, _ = card_of(load_task("panorama", model_file("dense"), "cpu", "fp32").config, bytes_=True)
    found = patches(*places(4), (1, 1))
    assert torch.allclose(found, (places(4)[1] / 127.5 - 1)[:, :, None, None].expand(4, 3, 2, 2), atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_engines_are_built_for_blocks(
    precision: torch.dtype, model_file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    from zellige.engine import runtimes
    from zellige.engine.tensorrt.build import build_engine

    found: list[dict[str, Any]] = []

    def opened(name: str, model: bytes, device: torch.device, sizes: Sequence[int], memory: int | None) -> Any:
        assert (name, device.type, tuple(sizes), memory) == ("tensorrt", "cuda", (4, 16, 64), None)
        # One profile of three: each takes as long to build.
        found.append(build_engine(model, flavour="rtx", targets=["sm_89"], profile=(4, 4, 4)).report)
        raise BudgetError("there is no device")

    monkeypatch.setattr(runtimes, "open_runtime", opened)
    generator: Generator = load_task("panorama", model_file("dense"), "cpu", "fp32").trained()
    rewrite_for_graphs(cast_maps(generator, precision))
    with pytest.raises(BudgetError, match="^there is no device$"):
        exported_patches("tensorrt", generator, torch.device("cuda"))(*places(3), (2, 1))
    (report,) = found
    assert [value["dtype"] for value in report["inputs"] + report["outputs"]] == ["float32"] * 3
    assert report["outputs"][0]["shape"] == ["N", 3, 16, 8]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tensorrt_renders_the_picture_of_torch(model_file: ModelFile, tmp_path: Path, precision: Any) -> None:
    for package in ("cupy", "onnx", "onnxscript"):
        pytest.importorskip(package)
    found = []
    for runtime in ("torch", "tensorrt"):
        model = load_task("panorama", model_file("dense"), "cuda", precision, runtime)
        report = model.panorama(tmp_path / f"{runtime}.png", width=5 * 32, memory="512MiB", seed=2)
        assert report["peak_memory_bytes"] <= report["memory_budget_bytes"]
        found.append(np.asarray(Image.open(tmp_path / f"{runtime}.png")))
    assert furthest(*found) <= (1 if precision == "fp32" else 12)
