from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.engine.panorama.lattice import Lattice
from zellige.engine.panorama.renderer import Renderer
from zellige.engine.panorama.scene import Region, Scene, turns, window
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import SizeError

# Model, turns along (rows, columns) of the picture, and the way to blend, if it is not the model's best.
SCENES: dict[str, tuple[Any, ...]] = {
    "still plane": ("plane", (1, 1)),
    "still cylinder": ("cylinder", (1, 1)),
    "still dense cylinder": ("dense", (1, 1)),
    "still torus": ("torus", (1, 1)),
    "moving cylinder": ("cylinder", (1, 3)),
    "moving dense cylinder": ("dense", (1, 3)),
    "half steps of a dense cylinder": ("dense", (1, 3), "half-step"),
    "dense torus moving both ways": ("dense torus", (2, 2)),
    "torus moving down": ("torus", (3, 1)),
    "torus moving across": ("torus", (1, 4)),
    "torus moving both ways": ("torus", (3, 2)),
}
scenes = pytest.mark.parametrize("name", SCENES)
moving_scenes = pytest.mark.parametrize("name", [name for name, (_, turned, *_) in SCENES.items() if turned != (1, 1)])
Painted = tuple[Renderer, Scene, np.ndarray]


def all_of(scene: Scene) -> Region:
    return Region(0, 0, scene.height, scene.width)


@pytest.fixture(scope="module")
def painted(model: Callable[[str], CocoGan]) -> Callable[[str], Painted]:
    """A renderer, a scene, and the whole picture in floats."""

    @cache
    def paint(name: str) -> Painted:
        kind, (down, across), *blend = SCENES[name]
        loaded = model(kind)
        height, width = loaded.size
        scene = loaded.scene(across * width, down * height, 5, **dict(zip(["blend"], blend, strict=False)))
        renderer = Renderer(loaded.patches, 64)
        return renderer, scene, renderer.region(scene, all_of(scene), "float").numpy()

    return paint


@st.composite
def regions(draw: st.DrawFn, scene: Scene) -> Region:
    """Any region; often one pixel thin, of prime sides, or smaller than a patch."""
    sides = []
    for limit in (scene.height, scene.width):
        favourites = [side for side in (1, 2, 3, 5, 7, 11, 13, 23, scene.patch, limit) if side <= limit]
        length = draw(st.sampled_from(favourites) | st.integers(1, limit))
        sides.append((draw(st.integers(0, limit - length)), length))
    (top, height), (left, width) = sides
    return Region(top, left, height, width)


@scenes
@given(data=st.data())
def test_every_pixel_has_a_total_weight_of_one(
    painted: Callable[[str], Painted], name: str, data: st.DataObject
) -> None:
    _, scene, _ = painted(name)
    region = data.draw(regions(scene))
    rows, columns = scene.windows()
    weights, layers = (np.zeros((region.height, region.width)) for _ in range(2))
    for top, left in scene.work(region).corners:
        ends = top + scene.patch * scene.block[0], left + scene.patch * scene.block[1]
        inside = slice(max(top, 0), max(ends[0], 0)), slice(max(left, 0), max(ends[1], 0))
        cut = weights[inside].shape
        assert min(cut) > 0, "a patch that touches nothing"
        weights[inside] += np.outer(rows[max(-top, 0) :][: cut[0]], columns[max(-left, 0) :][: cut[1]])
        layers[inside] += 1
    assert (layers == 2 ** sum(scene.halved)).all()
    np.testing.assert_allclose(weights, 1, atol=1e-6)


@pytest.mark.parametrize("patch", [4, 8, 16, 32, 64, 128, 256])
def test_windows_half_a_patch_apart_add_up_to_one(patch: int) -> None:
    weights = window(patch, blended=True)
    np.testing.assert_allclose(weights[patch // 2 :] + weights[: patch // 2], 1, atol=1e-6)
    assert (weights > 0).all()
    assert (window(patch, blended=False) == 1).all()


@scenes
@given(data=st.data())
def test_a_region_equals_the_crop_of_the_whole(
    painted: Callable[[str], Painted], name: str, data: st.DataObject
) -> None:
    renderer, scene, whole = painted(name)
    region = data.draw(regions(scene))
    crop = whole[region.top : region.top + region.height, region.left : region.left + region.width]
    np.testing.assert_allclose(renderer.region(scene, region, "float").numpy(), crop, rtol=0, atol=1e-6)


@scenes
@given(data=st.data())
def test_a_region_costs_only_the_patches_it_touches(
    painted: Callable[[str], Painted], name: str, data: st.DataObject
) -> None:
    _, scene, _ = painted(name)
    region = data.draw(regions(scene))
    most = 1
    for length, patches, halved in zip((region.height, region.width), scene.block, scene.halved, strict=True):
        pitch = scene.patch * patches // (1 + halved)
        most *= (length - 2) // pitch + 2 + halved
    assert 1 <= len(scene.work(region)) <= most


@moving_scenes
def test_the_last_half_step_and_the_first_are_one_patch(painted: Callable[[str], Painted], name: str) -> None:
    _, scene, _ = painted(name)
    down, across = (extent if moves else 0 for extent, moves in zip((scene.rows, scene.columns), scene.moving,
                                                                  strict=True))  # fmt: skip
    before = scene.conditions(np.full(1, -0.5 * scene.halved[0]), np.full(1, -0.5 * scene.halved[1]))
    after = scene.conditions(np.array([down - 0.5 * scene.halved[0]]), np.array([across - 0.5 * scene.halved[1]]))
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "moving cylinder",
        "moving dense cylinder",
        "half steps of a dense cylinder",
        "torus moving across",
        "torus moving both ways",
        "dense torus moving both ways",
    ],
)
@given(shift=st.integers(1, 100))
def test_the_closure_is_like_any_other_place(painted: Callable[[str], Painted], name: str, shift: int) -> None:
    renderer, scene, whole = painted(name)
    turned = replace(
        scene,
        first=(0, shift),
        latents=lambda rows, columns: scene.latents(rows, np.mod(columns + shift, scene.columns)),
    )
    picture = renderer.region(turned, all_of(scene), "float").numpy()
    np.testing.assert_allclose(picture, np.roll(whole, -shift * scene.patch, axis=1), rtol=0, atol=1e-6)


@moving_scenes
def test_every_turn_shows_something_else(painted: Callable[[str], Painted], name: str) -> None:
    _, scene, whole = painted(name)
    axis = 0 if scene.moving[0] else 1
    extent = (scene.lattice.rows, scene.lattice.columns)[axis] * scene.patch
    first, second = (np.take(whole, np.arange(extent) + k * extent, axis=axis) for k in (0, 1))
    assert np.abs(first - second).mean() > 0.05


@pytest.mark.parametrize("region", [Region(0, 0, 0, 4), Region(0, 0, 4, -1)])
def test_an_empty_region_is_refused(painted: Callable[[str], Painted], region: Region) -> None:
    with pytest.raises(SizeError, match="is empty; give a width and a height of 1 or more"):
        painted("moving cylinder")[1].check(region)


@pytest.mark.parametrize(
    "region", [Region(-1, 0, 4, 4), Region(0, -1, 4, 4), Region(21, 0, 4, 4), Region(0, 93, 4, 4), Region(0, 0, 24, 97)]
)
def test_a_region_that_leaves_the_picture_is_refused(painted: Callable[[str], Painted], region: Region) -> None:
    with pytest.raises(SizeError, match="reaches outside of the 96x24 picture"):
        painted("moving cylinder")[1].check(region)


@given(down=st.integers(1, 1000), across=st.integers(1, 10**9))
def test_whole_turns_are_counted(down: int, across: int) -> None:
    assert turns(Lattice("torus", 3, 4), 8, across * 32, down * 24) == (down, across)
    assert turns(Lattice("cylinder", 3, 4), 8, across * 32, 24) == (1, across)


@pytest.mark.parametrize(
    ("topology", "width", "height", "sentence"),
    [
        (
            "cylinder",
            100,
            24,
            "a width of 100 does not close on itself: it must be a multiple of 32, one turn of the model; "
            "the nearest is 96 or 128",
        ),
        (
            "torus",
            32,
            50,
            "a height of 50 does not close on itself: it must be a multiple of 24, one turn of the model; "
            "the nearest is 48 or 72",
        ),
        (
            "cylinder",
            20,
            24,
            "a width of 20 does not close on itself: it must be a multiple of 32, one turn of the model; "
            "the nearest is 32",
        ),
        ("cylinder", 0, 24, "the width must be positive, not 0; the model's own is 32"),
        ("cylinder", -32, 24, "the width must be positive, not -32; the model's own is 32"),
        ("torus", 32, 0, "the height must be positive, not 0; the model's own is 24"),
        ("cylinder", 64, 48, "the height of this model's pictures is always 24, not 48; leave it out or give 24"),
        ("plane", 64, 24, "the width of this model's pictures is always 32, not 64; leave it out or give 32"),
    ],
)
def test_sizes_that_the_model_cannot_render(topology: str, width: int, height: int, sentence: str) -> None:
    with pytest.raises(SizeError) as caught:
        turns(Lattice(topology, 3, 4), 8, width, height)
    assert str(caught.value) == sentence
