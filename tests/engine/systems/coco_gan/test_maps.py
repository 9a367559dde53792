"""Panoramas with maps: the scenes, their files, and the refusals."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zellige.engine.panorama.latents import fixed_latent
from zellige.engine.panorama.legend import Entry
from zellige.engine.panorama.maps import RegionMap
from zellige.engine.panorama.render import render_file
from zellige.engine.panorama.renderer import Renderer
from zellige.engine.panorama.scene import Region, Scene
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import DataError, MapError, SizeError, TaskError

Model = Callable[..., CocoGan]
Painted = tuple[CocoGan, Scene, np.ndarray]
BOTH, ACROSS, DOWN, ONE = [[0, 0, 1], [0, 2, 1]], [[0, 1, 2]], [[0], [1]], [[0]]
# Model, turns (vertically, horizontally), map, softening in pixels, share of the path.
SCENES: dict[str, tuple[str, tuple[int, int], list[list[int]], float, float]] = {
    "plane": ("plane", (1, 1), BOTH, 9, 0),
    "plane across": ("plane", (1, 1), ACROSS, 0, 0),
    "plane of several tiles": ("large", (1, 1), BOTH, 60, 0),
    "cylinder": ("cylinder", (1, 1), BOTH, 9, 0),
    "cylinder of turns": ("cylinder", (1, 2), DOWN, 9, 0.3),
    "dense cylinder": ("dense", (1, 2), BOTH, 9, 0),
    "dense cylinder across": ("dense", (1, 1), ACROSS, 9, 0),
    "torus": ("torus", (1, 1), BOTH, 0, 0),
    "torus of turns": ("torus", (2, 2), BOTH, 5, 0.3),
    "torus down": ("torus", (2, 1), DOWN, 5, 0),
}
scenes = pytest.mark.parametrize("name", SCENES)
small_scenes = pytest.mark.parametrize("name", [name for name, (kind, *_) in SCENES.items() if kind != "large"])


def region_map(regions: list[list[int]], length: int) -> RegionMap:
    return RegionMap(
        np.array(regions, np.uint8), tuple(Entry((k, k, k), fixed_latent(k, 0, length), f"seed {k}") for k in range(3))
    )


def all_of(scene: Scene) -> Region:
    return Region(0, 0, scene.height, scene.width)


@pytest.fixture(scope="module")
def painted(model: Model) -> Callable[[str], Painted]:
    """A model, a scene with a map, and its whole picture."""

    @cache
    def paint(name: str) -> Painted:
        kind, (down, across), regions, soften, vary = SCENES[name]
        loaded = model(kind)
        height, width = loaded.size
        painting = region_map(regions, loaded.config.latent)
        scene = loaded.mapped(painting, across * width, down * height, 5, soften=soften, vary=vary)
        return loaded, scene, loaded.render(scene, all_of(scene))

    return paint


@scenes
@given(data=st.data())
def test_a_region_is_the_crop_of_the_whole_to_the_bit(
    painted: Callable[[str], Painted], name: str, data: st.DataObject
) -> None:
    loaded, scene, whole = painted(name)
    sides = []
    for limit in (scene.height, scene.width):
        length = data.draw(st.sampled_from([1, 2, 5, 7, scene.patch]) | st.integers(1, min(limit, 40)))
        sides.append((data.draw(st.integers(0, limit - length)), length))
    (top, height), (left, width) = sides
    crop = whole[top : top + height, left : left + width]
    assert (loaded.render(scene, Region(top, left, height, width)) == crop).all()


@small_scenes
@pytest.mark.parametrize("batch", [1, 48])
def test_every_batch_and_every_block_gives_the_same_bits(
    painted: Callable[[str], Painted], name: str, batch: int
) -> None:
    loaded, scene, whole = painted(name)
    floats = Renderer(loaded.patches, 128).region(scene, all_of(scene), "float")
    assert (Renderer(loaded.patches, batch).region(scene, all_of(scene), "float") == floats).all()
    single = Renderer(loaded.patches, batch).region(replace(scene, block=(1, 1)), all_of(scene), "float")
    np.testing.assert_allclose(single, floats, rtol=0, atol=1e-5)
    assert np.abs(whole.astype(int) - whole[0, 0]).mean() > 5


@scenes
def test_patches_of_an_open_axis_stay_inside(painted: Callable[[str], Painted], name: str) -> None:
    _, scene, _ = painted(name)
    work = scene.work(all_of(scene))
    for axis, positions, extent, block in zip(
        scene.lattice.axes, (work.rows, work.columns), (scene.rows, scene.columns), scene.block, strict=True
    ):
        if not axis.cyclic:
            assert positions.min() == 0 and positions.max() == extent - block


def test_the_outermost_half_patch_of_an_open_axis_is_one_patch(painted: Callable[[str], Painted]) -> None:
    loaded, scene, whole = painted("plane")
    half = scene.patch // 2
    latents, coordinates = (np.float32(part) for part in scene.conditions(np.zeros(16), np.zeros(16)))
    patches = loaded._renderer.patches(16, lambda start, stop: (loaded._tensor(latents), loaded._tensor(coordinates)))
    corner = ((patches[0].permute(1, 2, 0).numpy()[:half, :half] + 1) * 127.5).round()
    np.testing.assert_allclose(whole[:half, :half], corner, atol=1)


@pytest.mark.parametrize("name", ["cylinder", "cylinder of turns", "dense cylinder", "torus", "torus of turns"])
@given(shift=st.integers(1, 8))
def test_the_closure_is_like_any_other_place(painted: Callable[[str], Painted], name: str, shift: int) -> None:
    loaded, scene, whole = painted(name)
    turned = replace(
        scene,
        first=(0, shift),
        latents=lambda rows, columns: scene.latents(rows, np.mod(columns + shift, scene.columns)),
    )
    picture = loaded.render(turned, all_of(scene)).astype(int)
    assert np.abs(picture - np.roll(whole, -shift * scene.patch, axis=1)).max() <= 1


@pytest.mark.parametrize("kind", ["plane", "cylinder", "dense", "torus"])
def test_a_map_of_one_colour_is_the_image_of_its_latent(model: Model, kind: str) -> None:
    loaded = model(kind)
    scene = loaded.mapped(region_map(ONE, loaded.config.latent), vary=0.3)
    assert scene.block == loaded.still_block
    assert (loaded.render(scene, all_of(scene)) == loaded.generate(1, seed=0)[0]).all()


@pytest.mark.parametrize("name", ["plane of several tiles", "cylinder of turns", "torus"])
def test_the_file_has_the_picture_of_the_scene(painted: Callable[[str], Painted], name: str, tmp_path: Path) -> None:
    loaded, scene, whole = painted(name)
    render_file(loaded.patches, scene, tmp_path / "a.png", budget=64 * 2**20)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == whole).all()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """A map of two halves and its legend."""
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, 1:] = 255
    Image.fromarray(pixels).save(tmp_path / "map.png")
    (tmp_path / "map.toml").write_text('["#000000"]\nseed = 7\n["#ffffff"]\nlatent = "white.npy"\n')
    np.save(tmp_path / "white.npy", np.full(6, 0.5, np.float32))
    return {"map": tmp_path / "map.png", "legend": tmp_path / "map.toml"}


def test_the_report_says_what_lies_where(model: Model, tmp_path: Path, files: dict[str, Any]) -> None:
    report = model("cylinder").panorama(tmp_path / "a.png", width=64, seed=3, soften=20, vary=0, **files)
    assert report["regions"] == [
        {"colour": "#000000", "latent": "seed 7", "share": 0.25},
        {"colour": "#ffffff", "latent": "white.npy", "share": 0.75},
    ]
    keys = "map_pixels_moved", "soften", "vary", "turns", "map", "legend"
    assert [report[key] for key in keys] == [0, 20, 0, [1, 2], str(files["map"]), str(files["legend"])]
    default = model("cylinder").panorama(tmp_path / "b.png", **files)
    assert (default["soften"], default["vary"], default["turns"]) == (16, 0.3, [1, 1])
    assert "regions" not in model("cylinder").panorama(tmp_path / "c.png")


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"legend": None}, TaskError, "a map needs a legend, a TOML file that says which latent each of its colours"),
        ({"map": None}, TaskError, "legend goes with a map; give the map too, or leave legend out"),
        ({"map": None, "legend": None, "soften": 3}, TaskError, "soften goes with a map; give the map too"),
        ({"map": None, "legend": None, "vary": 0.0}, TaskError, "vary goes with a map; give the map too"),
        ({"map": "gone.png"}, DataError, "there is no image file gone.png"),
        ({"legend": "gone.toml"}, MapError, "the legend cannot be read: there is no file gone.toml"),
        ({"soften": -1}, SizeError, "soften must be from 0 to 32, the picture's longer side in pixels, not -1"),
        ({"soften": 33}, SizeError, "soften must be from 0 to 32"),
        ({"soften": float("nan")}, SizeError, "soften must be from 0 to 32"),
        ({"vary": 2}, SizeError, "the latent can vary by a share from 0 to 1, not 2"),
        ({"seed": -1}, SizeError, "the seed must be 0 or more, not -1"),
        ({"width": 40}, SizeError, "the nearest is 32 or 64"),
    ],
)
def test_maps_that_cannot_be_leave_no_file(
    model: Model, tmp_path: Path, files: dict[str, Any], changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error) as caught:
        model("cylinder").panorama(tmp_path / "a.tif", **files | changes)
    assert sentence in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
