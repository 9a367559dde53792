import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zellige.engine.panorama.latents import fixed_latent
from zellige.engine.panorama.scene import Region
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import BudgetError, LatticeError, OutputError, ShapeError, SizeError, TaskError

Model = Callable[..., CocoGan]
# Grids of 3x4, 3x4, 2x3 and 3x3 patches.
MODELS = ("plane", "cylinder", "torus", "guided")
kinds = pytest.mark.parametrize("kind", MODELS)


def patches_of(image: np.ndarray, side: int) -> np.ndarray:
    """[H, W, 3] to [rows, columns, P, P, 3]."""
    height, width, _ = image.shape
    return image.reshape(height // side, side, width // side, side, 3).swapaxes(1, 2)


def noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


@kinds
def test_images_have_the_models_resolution(model: Model, kind: str) -> None:
    loaded = model(kind)
    images = loaded.generate(3, seed=1)
    assert images.shape == (3, *loaded.size, 3) and images.dtype == np.uint8
    assert loaded.size == (loaded.config.rows * loaded.config.patch, loaded.config.columns * loaded.config.patch)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@kinds
def test_the_same_seed_gives_the_same_bytes(model: Model, kind: str, precision: str) -> None:
    first, second = (model(kind, precision).generate(3, seed=2) for _ in range(2))
    assert (first == second).all()
    assert (first != model(kind, precision).generate(3, seed=3)).any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@kinds
def test_an_image_does_not_depend_on_how_many_are_made(model: Model, kind: str, precision: str) -> None:
    loaded = model(kind, precision)
    many = loaded.generate(19, seed=2)
    for count in (1, 2, 7, 18):
        assert (loaded.generate(count, seed=2) == many[:count]).all()


@kinds
def test_images_differ_and_so_do_their_patches(model: Model, kind: str) -> None:
    loaded = model(kind)
    first, second = loaded.generate(2).astype(int)
    assert np.abs(first - second).mean() > 5
    patches = patches_of(first, loaded.config.patch).reshape(loaded.config.rows * loaded.config.columns, -1)
    assert len(np.unique(patches, axis=0)) == len(patches)


def test_images_come_as_arrays_tensors_or_floats(model: Model) -> None:
    loaded = model("cylinder")
    loaded.warm([1, 2])
    pixels = loaded.generate(3, seed=4)
    tensor, floats = loaded.generate(3, seed=4, as_="torch"), loaded.generate(3, seed=4, as_="float")
    assert (tensor.numpy() == pixels).all() and not tensor.is_inference()
    assert (floats.shape, floats.dtype) == ((3, 3, *loaded.size), torch.float32)
    rounded = ((floats.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).byte()
    assert (rounded.int() - tensor.int()).abs().max() <= 1 and len(floats.unique()) > 256


@pytest.mark.parametrize("count", [0, -1])
def test_no_images_are_refused(model: Model, count: int) -> None:
    for task in (model("plane").generate, model("plane").beyond):
        with pytest.raises(SizeError, match=f"^{count} images cannot be generated; ask for 1 or more$"):
            task(count)


@pytest.mark.parametrize(
    "task",
    [
        lambda loaded, path: loaded.generate(1, seed=-1),
        lambda loaded, path: loaded.beyond(1, seed=-1),
        lambda loaded, path: loaded.region(-1, Region(0, 0, 1, 1)),
        lambda loaded, path: loaded.interpolate(-1, 3),
        lambda loaded, path: loaded.interpolate_coordinates(-1, 3, 3),
        lambda loaded, path: loaded.scene(64, seed=-1),
        lambda loaded, path: loaded.panorama(path, width=64, seed=-1),
        lambda loaded, path: loaded.panorama(path, seed=-1),
    ],
)
def test_negative_seeds_are_refused(model: Model, tmp_path: Path, task: Callable[[CocoGan, Path], object]) -> None:
    with pytest.raises(SizeError, match=r"^the seed must be 0 or more, not -1$"):
        task(model("cylinder"), tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(6,), (1, 5), (2, 7), (1, 1, 6), (0, 6)])
def test_latents_of_another_shape_are_refused(model: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"latents"):
        model("plane").from_latents(np.zeros(shape))


@kinds
@given(data=st.data())
def test_a_region_is_the_crop_of_the_whole(model: Model, kind: str, data: st.DataObject) -> None:
    loaded = model(kind)
    height, width = loaded.size
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    region = Region(top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    index = data.draw(st.integers(0, 2))
    crop = loaded.generate(3, seed=4)[index, top : top + region.height, left : left + region.width]
    assert (loaded.region(4, region, index) == crop).all()


@kinds
def test_the_ends_of_an_interpolation_are_the_images(model: Model, kind: str) -> None:
    loaded = model(kind)
    images, frames = loaded.generate(4, seed=6), loaded.interpolate(6, 5, images=(1, 3))
    assert (frames[0] == images[1]).all() and (frames[-1] == images[3]).all()


def test_all_patches_of_an_interpolation_change_in_step(model: Model) -> None:
    loaded = model("plane")
    frames = loaded.interpolate(6, 4)
    ends = [fixed_latent(6, k, loaded.config.latent) for k in (0, 1)]
    for frame, share in zip(frames, (0, 1 / 3, 2 / 3, 1), strict=True):
        between = (1 - share) * ends[0] + share * ends[1]
        assert (frame == loaded.from_latents(between[None])[0]).all()
    steps = np.stack([patches_of(frame, 8) for frame in frames]).astype(int)
    assert (np.abs(np.diff(steps, axis=0)).mean(axis=(3, 4, 5)) > 0.5).all(), "a patch that stands still"


def test_an_interpolation_of_one_frame_is_refused(model: Model) -> None:
    with pytest.raises(SizeError, match="needs 2 frames or more, not 1"):
        model("plane").interpolate(0, 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@kinds
def test_coordinates_on_the_lattice_give_the_images_patches(model: Model, kind: str, precision: str) -> None:
    loaded = model(kind, precision)
    grid = loaded.interpolate_coordinates(8, loaded.config.rows, loaded.config.columns, index=1)
    assert (grid == patches_of(loaded.generate(2, seed=8)[1], loaded.config.patch)).all()


def test_finer_coordinates_pass_through_the_images_patches(model: Model) -> None:
    loaded = model("cylinder")
    image = patches_of(loaded.generate(1, seed=8)[0], 8)
    grid = loaded.interpolate_coordinates(8, 2 * 3 - 1, 2 * 4)
    assert grid.shape == (5, 8, 8, 8, 3)
    assert (grid[::2, ::2] == image).all()


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (-1, 3)])
def test_an_empty_grid_of_coordinates_is_refused(model: Model, rows: int, columns: int) -> None:
    with pytest.raises(SizeError, match="is empty; give 1 or more each way"):
        model("plane").interpolate_coordinates(0, rows, columns)


def test_a_single_pair_of_coordinates_is_the_first_patch(model: Model) -> None:
    patch = model("plane").interpolate_coordinates(0, 1, 1)
    assert (patch[0, 0] == model("plane").generate(1)[0, :8, :8]).all()


@pytest.mark.parametrize("count", [1, 3])
def test_patch_guidance_uses_the_estimated_latents(model: Model, count: int) -> None:
    loaded = model("guided")
    macro = noise(count, loaded.config.macro)
    images = loaded.patch_guided(macro)
    assert images.shape == (count, *loaded.size, 3)
    assert (images == loaded.from_latents(loaded.estimate_latents(macro))).all()
    assert (images != loaded.generate(count)).any()


def test_estimated_latents_follow_the_patch_alone(model: Model) -> None:
    loaded = model("guided")
    macro = noise(3, loaded.config.macro)
    latents = loaded.estimate_latents(macro)
    assert latents.shape == (3, loaded.config.latent) and latents.dtype == np.float32
    assert (np.abs(latents) <= 1).all()
    assert (np.abs(latents[0] - latents[1]) > 1e-3).any()
    for k in range(3):  # head Q's batch norm uses its running statistics: no patch leaks into another
        np.testing.assert_allclose(loaded.estimate_latents(macro[k : k + 1])[0], latents[k], atol=1e-5)


def test_estimating_latents_leaves_no_gradients(model: Model) -> None:
    loaded = model("guided")
    with torch.enable_grad():
        loaded.patch_guided(noise(1, loaded.config.macro))
    assert all(not weight.requires_grad and weight.grad is None for weight in loaded.generator.parameters())


def test_without_a_latent_head_the_task_is_refused(model: Model) -> None:
    with pytest.raises(TaskError, match=r"^plane was trained without a latent head, .*--set model.latent_head=true"):
        model("plane").patch_guided(noise(1, 16))


@pytest.mark.parametrize(
    "macro", [noise(1, 8), noise(1, 17), noise(1, 16)[0], noise(1, 16)[..., :2], noise(1, 16).astype(np.float32)]
)
def test_macro_patches_of_another_shape_are_refused(model: Model, macro: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"macro patches must be uint8 \[n, 16, 16, 3\], not \w+ \[[\d, ]+\]$"):
        model("guided").patch_guided(macro)


@pytest.mark.parametrize("patches", [0, 1, 2])
@pytest.mark.parametrize("kind", ["plane", "guided"])
def test_beyond_the_boundary_of_a_plane(model: Model, kind: str, patches: int) -> None:
    loaded = model(kind)
    (height, width), edge = loaded.size, patches * loaded.config.patch
    images = loaded.beyond(2, seed=3, patches=patches)
    assert images.shape == (2, height + 2 * edge, width + 2 * edge, 3)
    assert (images[:, edge : edge + height, edge : edge + width] == loaded.generate(2, seed=3)).all()


def test_a_cylinder_goes_beyond_up_and_down_only(model: Model) -> None:
    loaded = model("cylinder")
    images = loaded.beyond(2, seed=3)
    assert images.shape == (2, 24 + 16, 32, 3)
    assert (images[:, 8:-8] == loaded.generate(2, seed=3)).all()


def test_a_torus_has_no_boundary(model: Model) -> None:
    with pytest.raises(LatticeError, match="a torus has no boundary to go beyond; render more turns instead"):
        model("torus").beyond(1)


def test_a_negative_extension_is_refused(model: Model) -> None:
    with pytest.raises(LatticeError, match="cannot be extended by -1 patches"):
        model("plane").beyond(1, patches=-1)


@kinds
def test_a_panorama_of_one_turn_is_the_first_image(model: Model, tmp_path: Path, kind: str) -> None:
    loaded = model(kind)
    loaded.panorama(tmp_path / "a.png", memory="96MiB", seed=5)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == loaded.generate(1, seed=5)[0]).all()


def test_a_panorama_is_the_scene_that_can_be_rendered_by_regions(model: Model, tmp_path: Path) -> None:
    loaded = model("torus")
    report = loaded.panorama(str(tmp_path / "a.png"), width=36, height=16, memory=96 * 2**20, seed=5)
    scene = loaded.scene(36, 16, seed=5)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == loaded.render(scene, Region(0, 0, 16, 36))).all()
    assert report["turns"] == [2, 3]


def test_a_panorama_reports_every_key_of_the_contract(model: Model, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = model("cylinder").panorama(
        tmp_path / "a.png", width=64, seed=5, progress=lambda done, total: told.append((done, total))
    )
    contract = {"seconds", "device", "precision", "seed", "width", "height", "patches", "batch",
                "megapixels_per_second", "memory_budget_bytes", "peak_memory_bytes"}  # fmt: skip
    assert contract <= set(report)
    assert (report["device"], report["precision"], report["seed"]) == ("cpu", "fp32", 5)
    assert (report["width"], report["height"], report["turns"]) == (64, 24, [1, 2])
    assert told[-1] == (64 * 24, 64 * 24)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"width": 40}, SizeError, "the nearest is 32 or 64"),
        ({"width": 0}, SizeError, "the width must be positive, not 0"),
        ({"height": 48}, SizeError, "the height of this model's pictures is always 24, not 48"),
        ({"memory": "1MiB"}, BudgetError, r"cylinder needs at least \d+MiB for one patch"),
        ({"memory": "lots"}, BudgetError, "'lots' is no amount of memory"),
        ({"out": "a.jpg"}, OutputError, "has no known picture format"),
        ({"out": "missing/a.tif"}, OutputError, "there is no folder"),
        ({"out": "a.png", "width": 2**27}, SizeError, r"Write a\.tif instead"),
    ],
)
def test_panoramas_that_cannot_be(
    model: Model, tmp_path: Path, arguments: dict[str, object], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        model("cylinder").panorama(**{**arguments, "out": tmp_path / str(arguments.get("out", "a.tif"))})  # type: ignore[arg-type]
    assert re.search(sentence, str(caught.value))
    assert list(tmp_path.iterdir()) == []
