"""An evaluation finds what a model was made to do: everything right, everything in one cluster, everything else."""

import json
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.checkpoint.file import read_tensors, write_checkpoint
from zellige.engine.library import load_task
from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.model import PREFIX, OneGan
from zellige.engine.systems.onegan.networks import OneGanNetworks
from zellige.engine.systems.onegan.results import Clusters, Parts
from zellige.errors import DataError
from zellige.training.data.emoji import EmojiScenes
from zellige.training.data.scenes import LabelledImage
from zellige.training.data.sources import open_scenes
from zellige.training.metrics.pictures import sliced_wasserstein
from zellige.training.systems import evaluate
from zellige.training.systems.onegan import evaluate as evaluate_onegan
from zellige.training.systems.onegan.evaluate import FIRST, compare_scenes

from ...sides import fill
from .tiny_onegan import MODEL

CHILDREN, PARENTS = ("a", "b", "c", "d", "e", "f"), ("first", "second")


class Blocks:
    """Rectangles on noise, one colour a class."""

    licence = "none"
    children, parents, parent_of = CHILDREN, PARENTS, (0, 0, 0, 1, 1, 1)

    def __init__(self, side: int = 16, seed: int = 0, known: tuple[str, ...] = ("mask", "child", "parent", "ground")):
        self.resolution, self.seed, self.known = (side, side), seed, known

    def scene(self, index: int) -> LabelledImage:
        random = np.random.default_rng((self.seed, index))
        side, child = self.resolution[0], int(random.integers(6))
        ground, mask = random.integers(0, 200, (side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
        (top, left), (height, width) = random.integers(0, side // 2, 2), random.integers(2, side // 2, 2)
        mask[top : top + height, left : left + width] = 255
        image = np.where(mask[..., None] > 0, np.uint8(200 + child), ground)
        truth = {"mask": mask, "child": child, "parent": self.parent_of[child], "ground": ground}
        return LabelledImage(image, **{name: truth[name] for name in self.known})  # type: ignore[arg-type]

    def background(self, index: int) -> np.ndarray:
        raise AssertionError("an evaluation needs no other places")


class Knowing:
    """Knows the scenes of a source by heart, and may name their classes otherwise."""

    device, precision, header, batch = torch.device("cpu"), "fp32", SimpleNamespace(details={}), 16

    def __init__(self, scenes: Any, count: int, rename: Callable[[np.ndarray], np.ndarray] = lambda x: x):
        self.size, self.rename, self.calls = scenes.resolution, rename, list[int]()
        self.all = [scenes.scene(FIRST + k) for k in range(count)]
        self.known = {scene.image.tobytes(): scene for scene in self.all}
        self.seen = list[np.ndarray]()

    def scenes(self, images: np.ndarray) -> list[LabelledImage]:
        self.calls.append(len(images))
        return [self.known[image.tobytes()] for image in images]

    def reconstruct(self, images: np.ndarray) -> Parts:
        scenes = self.scenes(images)
        self.seen += list(images)
        grounds = np.stack([scene.image if scene.ground is None else scene.ground for scene in scenes])
        masks = [np.zeros(self.size, np.uint8) if scene.mask is None else scene.mask for scene in scenes]
        return Parts(images, images, grounds, np.stack(masks))

    def cluster(self, images: np.ndarray) -> Clusters:
        scenes = self.scenes(images)
        child, parent = np.array([[scene.child, scene.parent] for scene in scenes]).T
        return Clusters(self.rename(child), self.rename(parent), np.ones(len(images), np.float32))

    def generate(self, count: int, seed: int) -> np.ndarray:
        self.calls.append(count)
        return np.stack([scene.image for scene in self.all[:count]])


def compare(scenes: Any, count: int = 20, **options: Any) -> dict[str, Any]:
    return compare_scenes(Knowing(scenes, count, **options), scenes, scenes, count)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = OneGanConfig(**MODEL)
    tensors = {PREFIX + name: tensor for name, tensor in OneGanNetworks(config).state_dict().items()}
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    write_checkpoint(path, tensors, system="onegan", config=config.model_dump(mode="json"))
    return path


@pytest.fixture(scope="module")
def model(tiny_file: Path) -> OneGan:
    return load_task("segment", tiny_file, device="cpu", precision="fp32")


class TestKnownAnswers:
    def test_what_is_right_everywhere_scores_the_most(self) -> None:
        report = compare(Blocks(), 40)
        for key in ("iou", "dice", "child_accuracy", "child_nmi", "parent_accuracy", "parent_nmi"):
            assert report[key] == pytest.approx(1), key
        for key in ("reconstruction_psnr", "inpainting_psnr", "inpainting_psnr_behind"):
            assert report[key] == 100, key
        assert report["inpainting_l1"] == report["inpainting_l1_behind"] == 0
        assert report["sliced_wasserstein"]["mean"] == 0 < report["sliced_wasserstein_data"]["mean"]
        assert report["missing"] == {}
        for rows in (report["per_class"], report["per_parent"]):
            assert all((row["iou"], row["dice"], row["accuracy"]) == (1, 1, 1) for row in rows)
            assert [row["cluster"] for row in rows] == list(range(len(rows)))
            assert sum(row["images"] for row in rows) == 40
        assert [(row["name"], row["parent"]) for row in report["per_class"]] == [
            *((name, "first") for name in "abc"), *((name, "second") for name in "def"),
        ]  # fmt: skip

    def test_the_names_of_clusters_do_not_count(self) -> None:
        right, renamed = compare(Blocks(), 40), compare(Blocks(), 40, rename=lambda x: 10 - 3 * x)
        for key in ("child_accuracy", "child_nmi", "parent_accuracy", "parent_nmi"):
            assert renamed[key] == pytest.approx(right[key]) == pytest.approx(1)
        assert [row["cluster"] for row in renamed["per_class"]] == [10, 7, 4, 1, -2, -5]

    def test_one_cluster_for_all_says_nothing(self) -> None:
        report = compare(Blocks(), 40, rename=np.zeros_like)
        assert report["child_nmi"] == report["parent_nmi"] == pytest.approx(0)
        counts = [row["images"] for row in report["per_class"]]
        assert report["child_accuracy"] == report["child_accuracy_chance"] == max(counts) / 40
        assert sorted(row["accuracy"] for row in report["per_class"]) == [0, 0, 0, 0, 0, 1]
        assert sum(row["cluster"] is None for row in report["per_class"]) == 5

    def test_few_pictures_of_many_classes_match_by_chance(self) -> None:
        class Each(Blocks):
            children, parents, parent_of = tuple(map(str, range(8))), ("all",), (0,) * 8

            def scene(self, index: int) -> LabelledImage:
                scene = super().scene(index)
                return LabelledImage(scene.image, child=index - FIRST, parent=0)

        report = compare(Each(), 8)
        assert report["child_accuracy"] == report["child_accuracy_chance"] == 1
        assert report["child_nmi"] == report["child_nmi_chance"] == pytest.approx(1)

    def test_a_class_without_a_picture_has_no_numbers(self) -> None:
        report = compare(Blocks(), 2)
        empty = [row for row in report["per_class"] if not row["images"]]
        assert len(empty) >= 4
        assert all(row["iou"] is row["dice"] is row["accuracy"] is row["cluster"] is None for row in empty)
        json.dumps(report, allow_nan=False)

    @pytest.mark.parametrize(
        ("known", "left_out"),
        [
            ((), {"iou", "dice", "iou_all_foreground", "child_nmi", "parent_accuracy_chance", "inpainting_psnr"}),
            (("mask",), {"child_accuracy", "inpainting_l1_behind"}),
            (("child", "parent"), {"iou", "inpainting_l1"}),
            (("mask", "child", "parent"), {"inpainting_psnr_behind_flat"}),
        ],
    )
    def test_what_nobody_knows_is_missing_with_its_reason(self, known: tuple[str, ...], left_out: set[str]) -> None:
        report, whole = compare(Blocks(known=known)), compare(Blocks())
        missing = {key for keys in report["missing"].values() for key in keys}
        assert left_out <= missing
        assert missing == whole.keys() - report.keys() - {"per_class", "per_parent"}
        assert ("per_class" in report) == ("child" in known)
        assert report["reconstruction_psnr"] == 100
        assert all(reason.startswith("the data has no ") for reason in report["missing"])


COUNT = OneGan.batch + 4


def psnr(error: np.ndarray) -> float:
    return float(20 * np.log10(255) - 10 * np.log10((error**2).mean()))


@pytest.fixture(scope="module")
def scenes() -> list[LabelledImage]:
    return [Blocks(64).scene(FIRST + k) for k in range(COUNT)]


@pytest.fixture(scope="module")
def report(model: OneGan) -> dict[str, Any]:
    return compare_scenes(model, Blocks(64), Blocks(64, seed=1), COUNT, seed=3)


class TestNumbers:
    def test_masks(self, model: OneGan, scenes: list[LabelledImage], report: dict[str, Any]) -> None:
        images = np.stack([scene.image for scene in scenes])
        masks, truth = np.stack(model.segment(images)) > 0, np.stack([scene.mask for scene in scenes]) > 0
        both, either = (masks & truth).sum((1, 2)), (masks | truth).sum((1, 2))
        assert report["iou"] == pytest.approx((both / either).mean())
        assert report["dice"] == pytest.approx((2 * both / (both + either)).mean())
        assert report["iou_all_foreground"] == pytest.approx(truth.mean())
        child = np.array([scene.child for scene in scenes])
        for index, row in enumerate(report["per_class"]):
            own = child == index
            assert row["images"] == own.sum()
            assert row["iou"] == (pytest.approx((both / either)[own].mean()) if own.any() else None)

    def test_clusters(self, model: OneGan, scenes: list[LabelledImage], report: dict[str, Any]) -> None:
        found = model.cluster(np.stack([scene.image for scene in scenes]))
        for kind, classes, clusters in (("child", 6, 7), ("parent", 2, 3)):
            truth = np.array([getattr(scene, kind) for scene in scenes])
            given = getattr(found, kind)
            best = max(np.mean(np.array(p)[truth] == given) for p in permutations(range(clusters), classes))
            assert report[f"{kind}_accuracy"] == pytest.approx(best)
            rows = report["per_class" if kind == "child" else "per_parent"]
            hits = sum((row["accuracy"] or 0) * row["images"] for row in rows)
            assert hits / COUNT == pytest.approx(best)

    def test_reconstructions_and_backgrounds(
        self, model: OneGan, scenes: list[LabelledImage], report: dict[str, Any]
    ) -> None:
        made = model.reconstruct(np.stack([scene.image for scene in scenes]))
        again, whole, behind, flat = [], [], [], []
        for k, scene in enumerate(scenes):
            assert scene.mask is not None and scene.ground is not None
            error, hidden = made.background[k].astype(float) - scene.ground, scene.mask > 0
            again.append(psnr(made.image[k].astype(float) - scene.image))
            whole.append((np.abs(error).mean(), psnr(error)))
            behind.append((np.abs(error[hidden]).mean(), psnr(error[hidden])))
            flat.append(psnr(scene.ground[~hidden].mean(0) - scene.ground[hidden]))
        assert report["reconstruction_psnr"] == pytest.approx(np.mean(again))
        for names, values in ((("l1", "psnr"), whole), (("l1_behind", "psnr_behind"), behind)):
            found = [report[f"inpainting_{name}"] for name in names]
            assert found == pytest.approx(np.mean(values, axis=0))
        assert report["inpainting_psnr_behind_flat"] == pytest.approx(np.mean(flat))

    def test_distances(self, model: OneGan, scenes: list[LabelledImage], report: dict[str, Any]) -> None:
        real = np.stack([scene.image for scene in scenes])
        other = np.stack([Blocks(64, seed=1).scene(FIRST + COUNT + k).image for k in range(COUNT)])
        assert report["sliced_wasserstein"] == sliced_wasserstein(real, model.generate(COUNT, seed=3))
        assert report["sliced_wasserstein_data"] == sliced_wasserstein(real, other)


def test_memory_does_not_grow_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_onegan, "MOST_COMPARED", 5)
    scenes, count = Blocks(), 3 * OneGan.batch + 1
    model = Knowing(scenes, count)
    report = compare_scenes(model, scenes, scenes, count)  # type: ignore[arg-type]
    assert model.calls == [5] + 6 * [OneGan.batch] + 2 * [1]
    assert sum(row["images"] for row in report["per_class"]) == count
    assert report["sliced_wasserstein"]["mean"] == 0


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight objects and backgrounds to train on and two of each held out, whose green says which picture it is."""

    def picture(k: int) -> np.ndarray:
        pixels = np.random.default_rng(k).integers(0, 256, (64, 64, 3), np.uint8)
        pixels[..., 1] = k
        return pixels

    folder = tmp_path_factory.mktemp("birds")
    for place in ("objects", "backgrounds"):
        fill(folder / place, picture, 10, {0, 7})
    return folder


class TestHeldOut:
    def test_of_a_folder_the_held_out_pictures_are_measured(self, birds: Path) -> None:
        held_out = open_scenes(str(birds), (64, 64), "held-out")
        model = Knowing(held_out, 20)
        report = evaluate_onegan.evaluate(model, str(birds), 20, 0)  # type: ignore[arg-type]
        assert {int(image[0, 0, 1]) for image in model.seen} == {0, 7}
        assert report["held_out"] == "one picture in ten, by its content, if there is one"
        assert {part: of["held_out"] for part, of in report["pictures"].items()} == {"objects": 2, "backgrounds": 2}

    def test_grounds_and_draws_of_emoji_are_not_those_of_training(self, monkeypatch: pytest.MonkeyPatch) -> None:
        try:
            held_out = open_scenes("emoji", (64, 64), "held-out")
        except DataError as missing:
            pytest.skip(str(missing))
        training, opened = open_scenes("emoji", (64, 64)), list[tuple[EmojiScenes, int]]()
        assert isinstance(held_out, EmojiScenes) and isinstance(training, EmojiScenes)
        model, draw = Knowing(held_out, 8), EmojiScenes.scene

        def watched(self: EmojiScenes, index: int) -> LabelledImage:
            opened.append((self, index))
            return draw(self, index)

        monkeypatch.setattr(EmojiScenes, "scene", watched)
        report = evaluate_onegan.evaluate(model, "emoji", 8, 0)  # type: ignore[arg-type]
        contacts = [(scenes._ground.split, scenes._ground._rotation(2 * index)[0]) for scenes, index in opened]
        assert [split for split, _ in contacts] == ["held-out"] * 8 + ["train"] * 8
        assert all((contact > 0).all() == (split == "held-out") for split, contact in contacts)
        # Under one number the same emoji lies at the same place of another ground: none of the numbers is used twice,
        # nor by a training of any length.
        assert (draw(held_out, 5).mask == draw(training, 5).mask).all()
        indices = [index for _, index in opened]
        assert len(set(indices)) == 16 and min(indices) >= 2**39
        assert report["held_out"].endswith("the emoji are those of the training")
        assert report["iou"] == report["child_accuracy"] == 1
        assert report["inpainting_psnr_behind"] == 100

    def test_the_ground_of_an_emoji_is_what_surrounds_it(self) -> None:
        try:
            scenes = open_scenes("emoji", (64, 64), "held-out")
        except DataError as missing:
            pytest.skip(str(missing))
        scene = scenes.scene(FIRST)
        assert scene.ground is not None and scene.mask is not None
        assert (scene.ground == scene.image)[scene.mask == 0].all()
        assert not (scene.ground == scene.image)[scene.mask == 255].all()


class TestReport:
    def test_conditions_are_in_it(self, model: OneGan, birds: Path) -> None:
        report = evaluate(model, str(birds), 2, seed=4)
        context = {"data": str(birds), "count": 2, "device": "cpu", "precision": "fp32", "seed": 4}
        assert report.items() >= context.items() and report["seconds"] > 0
        json.dumps(report, allow_nan=False)

    def test_data_of_the_training_is_the_default(self, model: OneGan, birds: Path, tmp_path: Path) -> None:
        header = model.header
        path = tmp_path / "birds.safetensors"
        write_checkpoint(
            path, read_tensors(header), system="onegan", config=header.config, details={"data": str(birds)}
        )
        again = load_task("segment", path, device="cpu", precision="fp32")
        assert evaluate(again, count=2)["data"] == str(birds)


class TestRefusals:
    def test_unknown_training_data_must_be_named(self, model: OneGan) -> None:
        with pytest.raises(DataError, match="tiny does not say what it was trained on; name the data set or folder"):
            evaluate(model)

    def test_one_image_is_not_compared(self, model: OneGan, birds: Path) -> None:
        with pytest.raises(DataError, match="1 images cannot be compared; use --count 2 or more"):
            evaluate(model, str(birds), count=1)

    def test_a_negative_seed(self, model: OneGan, birds: Path) -> None:
        with pytest.raises(DataError, match=r"the seed must be 0 or more and below 2\*\*63, not -1"):
            evaluate(model, str(birds), count=2, seed=-1)

    def test_a_data_set_without_objects(self, model: OneGan) -> None:
        with pytest.raises(DataError, match=r"or give a data set's name \(emoji, emoji-unseen\)"):
            evaluate(model, "earth", count=2)
