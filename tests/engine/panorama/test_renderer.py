import re
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zellige.engine.device import parse_bytes
from zellige.engine.panorama.render import render_file
from zellige.engine.panorama.renderer import Renderer
from zellige.engine.panorama.scene import Region, Scene
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.engine.systems.coco_gan.patches import CocoGanPatches
from zellige.errors import BudgetError, OutputError, SizeError

tifffile = pytest.importorskip("tifffile")

MIB = 2**20
Model = Callable[..., CocoGan]
REPORT = {
    "width",
    "height",
    "pixels_resumed",
    "patches",
    "block",
    "batch",
    "workers",
    "threads",
    "seconds",
    "seconds_generate",
    "seconds_encode",
    "seconds_write",
    "seconds_waiting",
    "megapixels_per_second",
    "memory_budget_bytes",
    "predicted_memory_bytes",
    "peak_memory_bytes",
}
# 9 to 11 rows and a single image are where CPU libraries differ.
BATCHES = (1, 2, 3, 7, 8, 9, 10, 11, 15, 16, 17, 18, 31, 33, 64, 100, 128)
TURNS = {"plane": (1, 1), "cylinder": (1, 5), "dense": (1, 5), "torus": (2, 5)}
kinds = pytest.mark.parametrize("kind", TURNS)


def picture_of(loaded: CocoGan, seed: int = 3) -> Scene:
    (height, width), (down, across) = loaded.size, TURNS[loaded.name]
    return loaded.scene(across * width, down * height, seed)


def all_of(scene: Scene) -> Region:
    return Region(0, 0, scene.height, scene.width)


class Forgetful(Generator):
    """A generator that runs out of memory at chosen calls, and remembers the sizes it was called with."""

    def __init__(
        self,
        like: Generator,
        fails: Callable[[int, int], bool],
        error: Callable[[str], BaseException] = torch.OutOfMemoryError,
    ) -> None:
        super().__init__(like.config, spectral=False)
        self._modules = deepcopy(like)._modules  # with rewritten layers, where there are any
        self.eval()
        self.fails, self.error, self.sizes = fails, error, []

    def forward(self, latent: Tensor, coordinates: Tensor, block: tuple[int, int] = (1, 1)) -> Tensor:
        if latent.is_meta or type(latent) is not Tensor:  # the prediction of memory
            return super().forward(latent, coordinates, block)
        self.sizes.append(len(latent))
        if self.fails(len(self.sizes), len(latent)):
            raise self.error("out of memory")
        return super().forward(latent, coordinates, block)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@kinds
def test_the_picture_does_not_depend_on_the_batch(model: Model, kind: str, precision: str) -> None:
    loaded = model(kind, precision)
    scene = picture_of(loaded)
    pictures = {batch: Renderer(loaded.patches, batch).region(scene, all_of(scene), "float") for batch in BATCHES}
    assert [batch for batch in BATCHES if not torch.equal(pictures[batch], pictures[1])] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@kinds
def test_wide_maps_in_parts_make_the_same_picture(
    model: Model, kind: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = model(kind, precision)
    scene = picture_of(loaded)
    whole = Renderer(loaded.patches, 128).region(scene, all_of(scene), "float")
    calls: list[int] = []
    last = loaded.generator.blocks[-1].conv2
    monkeypatch.setattr("zellige.engine.layers.batch_parts.WIDEST_CPU_MAP", 2**12)
    with last.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0]))):
        for batch in (16, 33, 49, 128):
            assert torch.equal(Renderer(loaded.patches, batch).region(scene, all_of(scene), "float"), whole)
    assert max(calls) < 16  # all batches but the last have at least so many


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@kinds
def test_the_picture_does_not_depend_on_the_order_of_its_regions(model: Model, kind: str, precision: str) -> None:
    loaded = model(kind, precision)
    scene = picture_of(loaded)
    renderer = Renderer(loaded.patches, 24)
    whole = renderer.region(scene, all_of(scene)).numpy()
    tops, lefts = range(0, scene.height, 7), range(0, scene.width, 29)
    regions = [
        Region(top, left, min(7, scene.height - top), min(29, scene.width - left)) for top in tops for left in lefts
    ]
    pieced = np.zeros_like(whole)
    for index in np.random.default_rng(0).permutation(len(regions)):
        region = regions[index]
        pieced[region.top :, region.left :][: region.height, : region.width] = renderer.region(scene, region).numpy()
    assert (pieced == whole).all()


def test_several_scenes_together_are_each_as_alone(model: Model) -> None:
    loaded = model("cylinder")
    scenes = [loaded.scene(96, seed=seed) for seed in range(3)]
    region = Region(5, 11, 13, 40)
    together = Renderer(loaded.patches, 50).regions([(scene, region) for scene in scenes], "float")
    for scene, picture in zip(scenes, together, strict=True):
        assert torch.equal(picture, Renderer(loaded.patches, 50).region(scene, region, "float"))


def test_bytes_are_the_rounded_floats(model: Model) -> None:
    loaded = model("cylinder")
    scene = picture_of(loaded)
    renderer = Renderer(loaded.patches, 64)
    floats = renderer.region(scene, all_of(scene), "float")
    assert torch.equal(renderer.region(scene, all_of(scene)), ((floats + 1) * 127.5).round().clamp(0, 255).byte())


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, MemoryError, lambda _: RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch_and_changes_nothing(
    model: Model, call: int, error: Callable[[str], BaseException]
) -> None:
    loaded = model("cylinder")
    scene = picture_of(loaded)
    whole = Renderer(loaded.patches, 50).region(scene, all_of(scene), "float")
    forgetful = Forgetful(loaded.generator, lambda now, size: now == call, error)
    renderer = Renderer(CocoGanPatches(forgetful), 50)  # 123 patches in three calls of 41
    assert torch.equal(renderer.region(scene, all_of(scene), "float"), whole)
    failed = forgetful.sizes[call - 1]
    assert renderer.batch == failed // 2
    assert max(forgetful.sizes[call:]) <= failed // 2


def test_blocks_shrink_too(model: Model) -> None:
    loaded = model("dense")
    scene = replace(picture_of(loaded), block=(3, 1))
    whole = Renderer(loaded.patches, 96).region(scene, all_of(scene), "float")
    forgetful = Forgetful(loaded.generator, lambda now, size: size > 8)
    renderer = Renderer(CocoGanPatches(forgetful), 96)
    assert torch.equal(renderer.region(scene, all_of(scene), "float"), whole)
    assert (renderer.batch, forgetful.sizes[-1]) == (5 * 3, 5)  # after 20 and 10


@pytest.mark.parametrize("most", [16, 20, 31])
def test_a_size_that_failed_is_never_tried_again(model: Model, most: int) -> None:
    loaded = model("torus")
    scene = picture_of(loaded)
    whole = Renderer(loaded.patches, 128).region(scene, all_of(scene), "float")
    forgetful = Forgetful(loaded.generator, lambda now, size: size > most)
    renderer = Renderer(CocoGanPatches(forgetful), 128)
    assert torch.equal(renderer.region(scene, all_of(scene), "float"), whole)
    failures = [size for size in forgetful.sizes if size > most]
    assert 1 < len(failures) == len(set(failures))
    forgetful.sizes.clear()
    renderer.region(scene, all_of(scene))
    assert max(forgetful.sizes) <= most, "the next region starts with what worked"


def test_without_memory_for_the_smallest_batch_the_error_names_a_larger_budget(model: Model) -> None:
    loaded = model("torus")
    scene = picture_of(loaded)
    forgetful = Forgetful(loaded.generator, lambda now, size: True)
    with pytest.raises(BudgetError, match=r"^planet needs at least (\d+MiB) for one patch") as caught:
        Renderer(CocoGanPatches(forgetful), 128, "planet", budget=50 * MIB).region(scene, all_of(scene))
    named = re.search(r"--memory 50MiB is too small. Try --memory (\w+)\.$", str(caught.value))
    assert named and parse_bytes(named[1]) > 50 * MIB
    assert sorted(set(forgetful.sizes), reverse=True) == forgetful.sizes


def test_without_a_budget_the_error_names_the_memory_that_is_needed(model: Model) -> None:
    loaded = model("torus")
    scene = picture_of(loaded)
    forgetful = Forgetful(loaded.generator, lambda now, size: True)
    with pytest.raises(BudgetError, match=r"^planet needs about \d+MiB of memory and less is free; free some$"):
        Renderer(CocoGanPatches(forgetful), 128, "planet").region(scene, all_of(scene))


def test_other_errors_are_not_taken_for_a_lack_of_memory(model: Model) -> None:
    loaded = model("torus")
    scene = picture_of(loaded)
    forgetful = Forgetful(loaded.generator, lambda now, size: True, RuntimeError)
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        Renderer(CocoGanPatches(forgetful), 128).region(scene, all_of(scene))
    assert len(forgetful.sizes) == 1


def test_a_region_outside_of_the_picture_is_refused(model: Model) -> None:
    loaded = model("cylinder")
    scene = picture_of(loaded)
    with pytest.raises(SizeError, match="reaches outside of the 160x24 picture"):
        Renderer(loaded.patches, 8).region(scene, Region(0, 150, 24, 11))


LARGE = {
    "cylinder": (1, 40),  # 1280x24: three tiles in a row
    "torus": (3, 90),  # 1080x24
    "large": (1, 1),  # 536x528: two tiles each way
}


def large_scene(loaded: CocoGan, kind: str) -> Scene:
    (height, width), (down, across) = loaded.size, LARGE[kind]
    return loaded.scene(across * width, down * height, seed=1)


@pytest.mark.parametrize("kind", LARGE)
def test_the_files_hold_the_picture(model: Model, tmp_path: Path, kind: str) -> None:
    loaded = model(kind)
    scene = large_scene(loaded, kind)
    whole = loaded.render(scene, all_of(scene))
    for name in ("a.tif", "a.png"):
        render_file(loaded.patches, scene, tmp_path / name, budget=256 * MIB)
    assert (tifffile.imread(tmp_path / "a.tif") == whole).all()
    assert (np.asarray(Image.open(tmp_path / "a.png")) == whole).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.tif"]


@pytest.mark.parametrize("kind", LARGE)
def test_a_file_of_a_region_is_the_crop_of_the_whole(model: Model, tmp_path: Path, kind: str) -> None:
    loaded = model(kind)
    scene = large_scene(loaded, kind)
    whole = loaded.render(scene, all_of(scene))
    path = tmp_path / "a.tif"
    for top, left, bottom, right in ((0, 0, 1, 1), (3, 5, 21, scene.width - 1), (0, 1, scene.height, scene.width)):
        part = Region(top, left, bottom - top, right - left)
        report = render_file(loaded.patches, scene, path, budget=256 * MIB, region=part)
        assert (tifffile.imread(path) == whole[top:bottom, left:right]).all()
        assert (report["width"], report["height"]) == (part.width, part.height)
    path.unlink()
    with pytest.raises(SizeError, match="reaches outside of the"):
        render_file(loaded.patches, scene, path, budget=256 * MIB, region=Region(0, 1, 4, scene.width))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", LARGE)
def test_the_file_does_not_depend_on_the_budget(model: Model, tmp_path: Path, kind: str) -> None:
    loaded = model(kind)
    scene = large_scene(loaded, kind)
    least = smallest_budget(loaded, scene, tmp_path / "a.tif")
    reports, files = [], []
    for budget in (least, least + 2 * MIB, 512 * MIB):
        reports.append(render_file(loaded.patches, scene, tmp_path / "a.tif", budget=budget))
        files.append((tmp_path / "a.tif").read_bytes())
    if kind != "torus":  # its patches of 4 pixels fill the largest batch in any budget
        assert reports[0]["batch"] < reports[2]["batch"]
    assert files[0] == files[1] == files[2]


def smallest_budget(loaded: CocoGan, scene: Scene, path: Path) -> int:
    with pytest.raises(BudgetError) as caught:
        render_file(loaded.patches, scene, path, budget=MIB, name="planet")
    sentence = r"^planet needs at least (\w+) for one patch; --memory 1MiB is too small. Try --memory (\w+)\.$"
    named = re.match(sentence, str(caught.value))
    assert named and named[1] == named[2]
    assert not path.exists()
    return parse_bytes(named[2])


@kinds
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_the_named_budget_works_and_one_mebibyte_less_does_not(
    model: Model, tmp_path: Path, kind: str, name: str
) -> None:
    loaded = model(kind)
    scene = picture_of(loaded)
    budget = smallest_budget(loaded, scene, tmp_path / name)
    with pytest.raises(BudgetError, match=f"--memory {budget // MIB - 1}MiB is too small"):
        render_file(loaded.patches, scene, tmp_path / name, budget=budget - MIB)
    report = render_file(loaded.patches, scene, tmp_path / name, budget=budget)
    assert report["predicted_memory_bytes"] <= budget
    assert report["peak_memory_bytes"] <= budget


@kinds
def test_the_report_has_every_key_of_the_contract(model: Model, tmp_path: Path, kind: str) -> None:
    loaded = model(kind)
    scene = picture_of(loaded)
    report = render_file(loaded.patches, scene, tmp_path / "a.tif", budget=128 * MIB)
    assert set(report) == REPORT
    assert (report["width"], report["height"]) == (scene.width, scene.height)
    assert report["patches"] == len(scene.work(all_of(scene))) * scene.block[0] * scene.block[1]
    assert report["memory_budget_bytes"] == 128 * MIB >= report["predicted_memory_bytes"]
    assert report["megapixels_per_second"] == pytest.approx(scene.width * scene.height / report["seconds"] / 1e6)


def test_progress_comes_in_pixels_and_ends_with_all_of_them(model: Model, tmp_path: Path) -> None:
    loaded = model("cylinder")
    scene = large_scene(loaded, "cylinder")
    told: list[tuple[int, int]] = []
    render_file(
        loaded.patches, scene, tmp_path / "a.tif", budget=64 * MIB,
        advance=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    total = scene.width * scene.height
    assert {of for _, of in told} == {total}
    done = [pixels for pixels, _ in told]
    assert len(done) > 1 and done == sorted(set(done)) and done[-1] == total


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [1, 5])
def test_an_exception_while_rendering_leaves_the_older_file_and_nothing_else(
    model: Model, tmp_path: Path, name: str, error: type[BaseException], call: int
) -> None:
    loaded = model("cylinder")
    (tmp_path / name).write_bytes(b"older")
    forgetful = Forgetful(loaded.generator, lambda now, size: now == call, error)
    with pytest.raises(error, match="out of memory"):
        render_file(CocoGanPatches(forgetful), large_scene(loaded, "cylinder"), tmp_path / name, budget=64 * MIB)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"older"


@pytest.mark.parametrize("name", ["missing/a.tif", "a.jpg", "."])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_rendered(
    model: Model, tmp_path: Path, name: str
) -> None:
    loaded = model("cylinder")
    forgetful = Forgetful(loaded.generator, lambda now, size: False)
    with pytest.raises(OutputError):
        render_file(CocoGanPatches(forgetful), picture_of(loaded), tmp_path / name, budget=64 * MIB)
    assert forgetful.sizes == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set's high-water mark is Linux's")
def test_peak_memory_is_flat_while_the_width_grows_sixteenfold(model: Model, tmp_path: Path) -> None:
    loaded = model("torus")  # its latent moves along both axes
    height, width = loaded.size
    small, large = (loaded.scene(42 * width * factor, 2 * height) for factor in (1, 16))

    def peak(scene: Scene) -> int:
        return int(render_file(loaded.patches, scene, tmp_path / "a.tif", budget=48 * MIB)["peak_memory_bytes"])

    peak(small)  # fills the libraries' caches
    # What earlier tests left of the heap is found again or not, so that a run's peak is off by some MiB, and by chance.
    first, second = (min(peak(scene) for _ in range(3)) for scene in (small, large))
    assert second <= 1.05 * first + 8 * MIB


def test_a_scene_that_leaves_the_boundary_is_rendered_like_any_other(model: Model, tmp_path: Path) -> None:
    loaded = model("plane")
    scene = replace(loaded.scene(seed=2), rows=5, columns=6, first=(-1, -1))
    render_file(loaded.patches, scene, tmp_path / "a.tif", budget=64 * MIB)
    picture = tifffile.imread(tmp_path / "a.tif")
    assert (picture[8:-8, 8:-8] == loaded.generate(1, seed=2)[0]).all()
