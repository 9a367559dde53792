from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.engine.panorama.lattice import Lattice, Topology
from zellige.training.data.folder import ImageFolder
from zellige.training.data.stream import stream
from zellige.training.systems.coco_gan.items import MacroPatches

from ...sides import fill, noise

PATCH = 4
PLANE, CYLINDER, TORUS = Lattice("plane", 4, 5), Lattice("cylinder", 3, 6), Lattice("torus", 4, 5, 3)


class Charts:
    """Pictures whose red is the row, green the column, blue the picture's index: a crop says where it was taken."""

    licence = "none"

    def __init__(self, lattice: Lattice, cyclic: tuple[bool, bool] | None = None) -> None:
        self.resolution = (lattice.rows * PATCH, lattice.columns * PATCH)
        vertical, horizontal = lattice.axes
        self.cyclic = cyclic or (vertical.cyclic, horizontal.cyclic)

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> np.ndarray:
        rows, columns = np.floor(top + np.arange(size[0])), np.floor(left + np.arange(size[1]))
        for places, length, wraps in zip((rows, columns), self.resolution, self.cyclic, strict=True):
            assert wraps or (places.min() >= 0 and places.max() < length), "a crop reaches out of the picture"
            places %= length
        return np.stack(np.broadcast_arrays(rows[:, None], columns[None], index % 256), axis=-1).astype(np.uint8)

    def image(self, index: int) -> np.ndarray:
        return self.crop(index, 0, 0, self.resolution)


def patches(lattice: Lattice, seed: int = 0, **options: Any) -> MacroPatches:
    cyclic = options.pop("cyclic", None)
    return MacroPatches(Charts(lattice, cyclic), lattice, PATCH, seed, **options)


def positions(source: MacroPatches, count: int = 400) -> np.ndarray:
    return np.stack([source[k][1].numpy() for k in range(0, 2 * count, 2)])


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    fill(tmp_path, noise(12, 24), 5)
    return ImageFolder(tmp_path, (12, 24), cyclic=(False, True))


class TestItems:
    @pytest.mark.parametrize("lattice", [PLANE, CYLINDER, TORUS], ids=str)
    def test_an_item_is_a_macro_patch_and_its_position(self, lattice: Lattice) -> None:
        patch, position = patches(lattice)[0]
        side = lattice.span * PATCH
        assert patch.shape == (3, side, side) and patch.dtype == torch.uint8
        assert position.shape == (2,) and position.dtype == torch.float64

    @given(item=st.integers(0, 2**40), seed=st.integers(0, 2**32))
    def test_an_item_is_a_function_of_seed_and_item(self, item: int, seed: int) -> None:
        for one, other in zip(patches(CYLINDER, seed)[item], patches(CYLINDER, seed)[item], strict=True):
            assert torch.equal(one, other)

    def test_the_order_of_access_does_not_matter(self) -> None:
        source = patches(PLANE)
        forwards, backwards = [source[k] for k in range(20)], [source[k] for k in reversed(range(20))]
        assert all(torch.equal(a[0], b[0]) for a, b in zip(forwards, reversed(backwards), strict=True))

    def test_another_seed_gives_other_items(self) -> None:
        one, other = (torch.stack([patches(PLANE, seed)[k][0] for k in range(8)]) for seed in (0, 1))
        assert not torch.equal(one, other)

    @given(pair=st.integers(0, 2**40))
    def test_a_pair_shares_its_position(self, pair: int) -> None:
        (first, at), (second, there) = (patches(TORUS)[2 * pair + k] for k in (0, 1))
        assert torch.equal(at, there) and torch.equal(first[:2], second[:2])

    def test_a_pair_differs_in_its_picture(self) -> None:
        source = patches(PLANE)
        # The last byte of an index of 31 bits shows in blue: of 256 pairs, one agrees there by chance.
        same = sum(torch.equal(source[k][0][2], source[k + 1][0][2]) for k in range(0, 512, 2))
        assert same < 8

    def test_many_pictures_are_drawn(self) -> None:
        assert len({int(patches(PLANE)[k][0][2, 0, 0]) for k in range(200)}) > 100

    @pytest.mark.parametrize("sampling", ["lattice", "continuous"])
    @pytest.mark.parametrize("lattice", [PLANE, CYLINDER, TORUS], ids=str)
    def test_the_patch_is_the_picture_at_its_position(self, lattice: Lattice, sampling: Any) -> None:
        source = patches(lattice, sampling=sampling)
        for k in range(50):
            patch, position = source[k]
            corner = np.floor(position.numpy() * PATCH) % np.array(source.pictures.resolution)
            np.testing.assert_array_equal(patch[:2, 0, 0], corner)


class TestSampling:
    @pytest.mark.parametrize("lattice", [PLANE, CYLINDER, TORUS], ids=str)
    def test_on_the_lattice_every_macro_position_is_drawn_and_no_other(self, lattice: Lattice) -> None:
        drawn = {tuple(position) for position in positions(patches(lattice))}
        assert drawn == {tuple(cell) for cell in lattice.macro_cells()}

    def test_macro_positions_are_equally_likely(self) -> None:
        _, counts = np.unique(positions(patches(PLANE), 1200), axis=0, return_counts=True)
        expected = 1200 / 12
        assert ((counts - expected) ** 2 / expected).sum() < 31.3  # chi-square, 11 degrees of freedom, 0.1 %

    @pytest.mark.parametrize("lattice", [PLANE, CYLINDER, TORUS], ids=str)
    def test_continuous_sampling_frees_the_cyclic_axes_alone(self, lattice: Lattice) -> None:
        drawn = positions(patches(lattice, sampling="continuous"))
        for k, axis in enumerate(lattice.axes):
            if axis.cyclic:
                assert drawn[:, k].min() >= 0 and drawn[:, k].max() < axis.patches
                assert drawn[:, k].max() > axis.patches - 0.2 and len(np.unique(drawn[:, k])) == len(drawn)
            else:
                assert set(drawn[:, k]) == set(range(axis.macro_positions))

    @pytest.mark.parametrize("sampling", ["lattice", "continuous"])
    @pytest.mark.parametrize(
        ("lattice", "cyclic"), [(TORUS, (False, False)), (CYLINDER, (False, False)), (TORUS, (False, True))], ids=str
    )
    def test_pictures_that_do_not_close_are_cropped_inside(
        self, lattice: Lattice, cyclic: tuple[bool, bool], sampling: Any
    ) -> None:
        source = patches(lattice, cyclic=cyclic, sampling=sampling)
        corners = np.stack([source[k][0][:2, 0, 0].numpy() for k in range(400)])  # Charts refuses all others
        for k, (axis, wraps) in enumerate(zip(lattice.axes, cyclic, strict=True)):
            if axis.cyclic and not wraps:
                free = source.pictures.resolution[k] - lattice.span * PATCH
                assert set(corners[:, k]) == set(range(free))

    @pytest.mark.parametrize("topology", ["plane", "cylinder", "torus"])
    def test_positions_of_non_cyclic_pictures_follow_the_lattice_all_the_same(self, topology: Topology) -> None:
        lattice = Lattice(topology, 4, 5, 3)
        np.testing.assert_array_equal(
            positions(patches(lattice, cyclic=(False, False)), 50), positions(patches(lattice), 50)
        )


def batches(folder: ImageFolder, workers: int, first: int = 0, count: int = 4) -> list[tuple[Tensor, Tensor]]:
    source = MacroPatches(folder, CYLINDER, PATCH, 3, "continuous")
    loader: Iterator[tuple[Tensor, Tensor]] = stream(source, first=first, batch=6, workers=workers)
    return list(islice(loader, count))


class TestStream:
    def test_a_batch_holds_consecutive_items(self, folder: ImageFolder) -> None:
        source = MacroPatches(folder, CYLINDER, PATCH, 3, "continuous")
        for k, (images, places) in enumerate(batches(folder, 0)):
            for j in range(6):
                patch, position = source[6 * k + j]
                assert torch.equal(images[j], patch) and torch.equal(places[j], position)

    @pytest.mark.parametrize("done", [1, 3])
    def test_a_stream_that_starts_further_on_goes_on_alike(self, folder: ImageFolder, done: int) -> None:
        for one, other in zip(batches(folder, 0, count=5)[done:], batches(folder, 0, 6 * done, 5 - done), strict=True):
            assert all(map(torch.equal, one, other))

    def test_a_stream_has_no_end(self, folder: ImageFolder) -> None:
        assert len(batches(folder, 0, count=100)) == 100
