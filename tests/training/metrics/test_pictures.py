import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from zellige.errors import DataError, ShapeError
from zellige.training.metrics.pictures import diversity, sliced_wasserstein
from zellige.training.metrics.seams import seam_ratio


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(images: np.ndarray, times: int) -> np.ndarray:
    """Blur along both sides, with the borders closed."""
    values = images.astype(np.float64)
    for _ in range(times):
        for axis in (1, 2):
            values = (values + np.roll(values, 1, axis)) / 2
    return values.round().astype(np.uint8)


class TestSlicedWasserstein:
    def test_equal_sets_are_at_distance_zero(self) -> None:
        images = noise(4, 64, 64, 3)
        assert set(sliced_wasserstein(images, images).values()) == {0.0}

    @pytest.mark.parametrize(
        ("height", "width", "levels"),
        [(128, 128, ["128", "64", "32", "16"]), (64, 256, ["64", "32", "16"]), (100, 61, ["61", "31", "16"])],
    )
    def test_levels_go_down_to_16_pixels(self, height: int, width: int, levels: list[str]) -> None:
        images = noise(2, height, width, 3)
        assert list(sliced_wasserstein(images, images, patches=4, projections=8)) == [*levels, "mean"]

    def test_two_distributions_known_in_closed_form(self) -> None:
        # Grey noise in patches of one pixel: a projection is the grey value times the sum of a random unit vector,
        # sqrt(3) / 2 in the mean. Between two values (+-1) and a uniform distribution of deviation 1, W1 = 0.4434.
        real = np.repeat(noise(100, 16, 16, 1) // 128 * 255, 3, axis=3)
        generated = np.repeat(noise(100, 16, 16, 1, seed=1), 3, axis=3)
        exact = 1000 * math.sqrt(3) / 2 * (math.sqrt(3) / 2 + 2 / math.sqrt(3) / 2 - 1)
        found = sliced_wasserstein(real, generated, patches=64, size=1, projections=2048)
        assert found["16"] == pytest.approx(exact, rel=0.04)

    def test_brightness_and_contrast_of_a_whole_set_are_not_seen(self) -> None:
        images = noise(4, 32, 32, 3) // 2
        assert sliced_wasserstein(images, images * 2)["mean"] == pytest.approx(0, abs=1e-2)
        assert sliced_wasserstein(images, images + 100)["mean"] == pytest.approx(0, abs=1e-2)

    def test_more_blur_is_further_away(self) -> None:
        images = noise(16, 32, 32, 3)
        distances = [sliced_wasserstein(images, smooth(images, times), patches=32)["mean"] for times in (0, 1, 2, 4)]
        assert distances == sorted(distances) and distances[0] == 0

    def test_a_change_of_fine_detail_shows_at_the_finest_level(self) -> None:
        images = smooth(noise(16, 64, 64, 3), 8)
        checks = (np.indices((64, 64)).sum(0) % 2 * 8).astype(np.uint8)[:, :, None]
        found = sliced_wasserstein(images, images + checks)
        assert found["64"] > 20 * max(found["32"], found["16"])

    def test_a_seed_repeats(self) -> None:
        real, generated = noise(3, 32, 32, 3), noise(3, 32, 32, 3, seed=1)
        assert sliced_wasserstein(real, generated, seed=5) == sliced_wasserstein(real, generated, seed=5)
        assert sliced_wasserstein(real, generated, seed=5) != sliced_wasserstein(real, generated, seed=6)

    def test_more_images_than_fit_at_once_are_each_used(self) -> None:
        real, generated = noise(70, 16, 16, 3), noise(70, 16, 16, 3)
        generated[66:] //= 4  # the second batch of the pyramid
        assert sliced_wasserstein(real, generated)["mean"] > 1

    def test_with_wrap_a_seam_counts_wherever_it_lies(self) -> None:
        ramp = np.arange(64, dtype=np.uint8)[None, None, :, None] * 2
        seam_at_the_wrap = smooth(noise(16, 32, 64, 3), 8) // 2 + ramp
        seam_inside = np.roll(seam_at_the_wrap, 32, axis=2)
        closed, cut = (
            sliced_wasserstein(seam_at_the_wrap, seam_inside, wrap=wrap, levels=1, projections=64)["mean"]
            for wrap in (True, False)
        )
        assert closed < cut / 3

    def test_flat_sets_are_finite(self) -> None:
        black = np.zeros((2, 32, 32, 3), np.uint8)
        assert sliced_wasserstein(black, black + 255)["mean"] == 0
        assert math.isfinite(sliced_wasserstein(black, noise(2, 32, 32, 3))["mean"])

    @pytest.mark.parametrize(
        ("real", "generated", "options", "sentence"),
        [
            (noise(2, 32, 32, 3), noise(3, 32, 32, 3), {}, "same number"),
            (noise(2, 32, 32, 3), noise(2, 32, 48, 3), {}, "one size"),
            (noise(2, 32, 32, 1), noise(2, 32, 32, 1), {}, r"\[N, H, W, 3\]"),
            (np.zeros((2, 32, 32, 3)), np.zeros((2, 32, 32, 3)), {}, "uint8"),
            (noise(2, 6, 32, 3), noise(2, 6, 32, 3), {}, "too small"),
            (noise(2, 32, 32, 3), noise(2, 32, 32, 3), {"levels": 4}, "too small"),
            (noise(2, 32, 33, 3), noise(2, 32, 33, 3), {"wrap": True}, "even widths"),
        ],
    )
    def test_other_sets_are_refused(
        self, real: np.ndarray, generated: np.ndarray, options: dict[str, int], sentence: str
    ) -> None:
        with pytest.raises(ShapeError, match=sentence):
            sliced_wasserstein(real, generated, **options)


class TestSeamRatio:
    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("wrap", [False, True])
    def test_white_noise_has_no_seams(self, axis: int, wrap: bool) -> None:
        assert seam_ratio(noise(512, 512, 3), 32, axis, wrap=wrap) == pytest.approx(1, abs=0.05)

    @pytest.mark.parametrize(
        ("length", "phase", "borders"), [(96, 0, [32, 64]), (97, 0, [32, 64, 96]), (96, 5, [5, 37, 69])]
    )
    @pytest.mark.parametrize("axis", [0, 1])
    def test_a_drawn_border_has_its_computed_ratio(
        self, axis: int, length: int, phase: int, borders: list[int]
    ) -> None:
        # Steps of one everywhere, and steps of five at the borders.
        steps = np.ones(length, np.uint8)
        steps[0] = 0
        steps[borders] = 5
        picture = np.broadcast_to(steps.cumsum(dtype=np.uint8)[:, None, None], (length, 7, 3))
        assert seam_ratio(picture.swapaxes(0, axis), 32, axis, phase=phase) == pytest.approx(5)

    def test_a_negative_phase_is_the_same_lattice(self) -> None:
        picture = noise(64, 64, 3)
        assert seam_ratio(picture, 16, 1, phase=-3) == seam_ratio(picture, 16, 1, phase=13)

    def test_only_the_given_axis_counts(self) -> None:
        picture = noise(128, 128, 3) // 8
        picture[:, 64:] += 100
        assert seam_ratio(picture, 64, 1) > 5
        assert seam_ratio(picture, 64, 0) == pytest.approx(1, abs=0.1)

    def test_the_wrap_border_is_measured_alone(self) -> None:
        ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (5, 64, 3))
        assert seam_ratio(ramp, 16, 1) == pytest.approx(1)
        assert seam_ratio(ramp, 16, 1, wrap=True) == pytest.approx(63)

    def test_pictures_are_pooled_by_their_means(self) -> None:
        still = np.zeros((4, 64, 3), np.uint8)  # alone its ratio would be 0 / 0
        ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (4, 64, 3))
        stepped = ramp + (np.arange(64) >= 32)[None, :, None].astype(np.uint8) * 9
        pictures: Sequence[np.ndarray] = [still, ramp, stepped]
        assert seam_ratio(pictures, 32, 1) == pytest.approx((0 + 1 + 10) / 2)
        assert seam_ratio(np.stack(pictures), 32, 1) == pytest.approx(5.5)

    def test_a_flat_picture_is_perfect_and_one_with_nothing_but_borders_is_not(self) -> None:
        flat = np.zeros((8, 8, 3), np.uint8)
        assert seam_ratio(flat, 4, 0) == 1
        flat[4:] = 1
        assert seam_ratio(flat, 4, 0) == math.inf

    @pytest.mark.parametrize("axis", [0, 1])
    def test_a_memory_map_of_several_chunks_equals_the_whole(self, tmp_path: Path, axis: int) -> None:
        picture = np.memmap(tmp_path / "picture.raw", np.uint8, "w+", shape=(700, 3000, 3))  # two chunks
        picture[:] = noise(700, 3000, 3)
        gradients = np.abs(np.diff(picture.astype(np.int16), axis=axis)).mean((1 - axis, 2))
        border = np.arange(1, picture.shape[axis]) % 64 == 0
        expected = gradients[border].mean() / gradients[~border].mean()
        assert seam_ratio(picture, 64, axis) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(("pitch", "axis"), [(64, 1), (1, 0)])
    def test_a_lattice_without_borders_or_insides_is_refused(self, pitch: int, axis: int) -> None:
        with pytest.raises(ShapeError, match="no border"):
            seam_ratio(noise(32, 32, 3), pitch, axis)

    def test_other_arguments_are_refused(self) -> None:
        with pytest.raises(ShapeError, match="axis"):
            seam_ratio(noise(32, 32, 3), 8, 2)
        with pytest.raises(ShapeError, match="uint8"):
            seam_ratio([noise(32, 32)], 8, 0)


class TestDiversity:
    def test_the_data_itself_has_one(self) -> None:
        images = noise(6, 8, 8, 3)
        assert diversity(images, images[::-1]) == 1

    def test_a_collapsed_generator_has_none(self) -> None:
        real = noise(6, 8, 8, 3)
        assert diversity(real, np.repeat(real[:1], 4, axis=0)) == 0

    def test_half_the_contrast_is_half_the_diversity(self) -> None:
        images = noise(6, 8, 8, 3) // 2 * 2
        assert diversity(images, images // 2) == pytest.approx(0.5)

    def test_all_pairs_count(self) -> None:
        real, generated = noise(7, 5, 6, 3), noise(4, 5, 6, 3, seed=1) // 3
        distances = [
            np.mean([np.abs(a.astype(int) - b).mean() for a, b in combinations(images, 2)])
            for images in (real, generated)
        ]
        assert diversity(real, generated) == pytest.approx(distances[1] / distances[0], rel=1e-12)

    def test_several_chunks_equal_the_whole(self) -> None:
        real = noise(8, 600, 512, 3)
        assert diversity(real, real[:, ::-1]) == 1

    def test_sets_without_pairs_or_differences_are_refused(self) -> None:
        with pytest.raises(ShapeError, match="two images"):
            diversity(noise(1, 8, 8, 3), noise(4, 8, 8, 3))
        with pytest.raises(ShapeError, match="one size"):
            diversity(noise(2, 8, 8, 3), noise(2, 8, 9, 3))
        with pytest.raises(DataError, match="the same"):
            diversity(np.zeros((3, 8, 8, 3), np.uint8), noise(3, 8, 8, 3))
