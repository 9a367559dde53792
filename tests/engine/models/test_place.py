"""What cells of a map add by their own place: equal places get equal values, whichever patch they belong to."""

import math

import pytest
import torch

from zellige.engine.models.coco_gan import CocoGanConfig, Generator
from zellige.engine.models.coordinates import Lattice, Topology
from zellige.engine.models.place import Place

LATTICES: list[tuple[Topology, int, int]] = [("plane", 4, 6), ("cylinder", 4, 32), ("torus", 8, 8)]


LATENT = torch.linspace(-1, 1, 5, dtype=torch.float64)[None]


def _coordinates(lattice: Lattice, row: float, column: float) -> torch.Tensor:
    return torch.from_numpy(lattice.micro([row], [column]))


@pytest.mark.parametrize(("topology", "rows", "columns"), LATTICES)
@pytest.mark.parametrize(("down", "across"), [(0.0, 0.5), (0.5, 0.0), (0.5, 0.5)])
def test_overlapping_patches_add_the_same_where_they_overlap(
    topology: Topology, rows: int, columns: int, down: float, across: float
) -> None:
    lattice, side = Lattice(topology, rows, columns, octaves=8), 8
    place = Place(lattice, 5, 3, side).double()
    one, other = place(_coordinates(lattice, 1, 2), LATENT), place(_coordinates(lattice, 1 + down, 2 + across), LATENT)
    a, b = int(down * side), int(across * side)
    torch.testing.assert_close(one[:, :, a:, b:], other[:, :, : side - a, : side - b])


def test_the_last_column_is_followed_by_the_first() -> None:
    lattice = Lattice("cylinder", 4, 12, octaves=6)
    place = Place(lattice, 5, 3, 8).double()
    torch.testing.assert_close(
        place(_coordinates(lattice, 0, 11.5), LATENT)[..., 4:], place(_coordinates(lattice, 0, 0), LATENT)[..., :4]
    )


def test_a_cell_sees_the_cosine_of_its_own_centre() -> None:
    lattice, side = Lattice("cylinder", 4, 12, octaves=4), 4
    place = Place(lattice, 5, 1, side).double()
    for parameter in place.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(place.gains.bias)
    place.columns.weight.data[0, 2] = 1.0  # the cosine of the third octave
    angles = [4 * math.pi * (-1 + 2 * (5 + (cell + 0.5) / side) / 12) for cell in range(side)]
    expected = torch.tensor([math.cos(angle) for angle in angles], dtype=torch.float64)
    torch.testing.assert_close(place(_coordinates(lattice, 0, 5), LATENT)[0, 0], expected.expand(side, side))


def test_every_latent_has_a_field_of_its_own() -> None:
    lattice = Lattice("cylinder", 4, 12, octaves=4)
    place, coordinates = Place(lattice, 5, 3, 8).double(), _coordinates(lattice, 1, 2)
    assert (place(coordinates, LATENT) - place(coordinates, -LATENT)).abs().max() > 0.1


@pytest.mark.parametrize("side", [2, 4, 8, 16, 32])
def test_no_wave_is_shorter_than_four_cells(side: int) -> None:
    place = Place(Lattice("cylinder", 4, 32, octaves=16), 5, 1, side)
    for wave, sums in zip(place.waves, place.sums, strict=True):
        highest = max(sum(2**k for k in octaves) for octaves in sums)
        assert 4 <= side * wave / highest < 8


def test_a_dense_generator_starts_every_patch_from_the_latent_alone() -> None:
    config = CocoGanConfig(topology="cylinder", columns=8, octaves=4, dense=True, patch=8, width=2)
    generator = Generator(config, spectral=False)
    assert generator.stem.out_features == 16 * config.width
    assert generator.stem.in_features == config.latent


@pytest.mark.parametrize(("topology", "rows", "columns"), LATTICES)
def test_a_dense_generator_runs_on_every_topology(topology: Topology, rows: int, columns: int) -> None:
    config = CocoGanConfig(
        topology=topology, rows=rows, columns=columns, octaves=6, dense=True, patch=8, width=2, condition_scale=1
    )
    generator = Generator(config).train()
    coordinates = torch.from_numpy(config.lattice.micro([0, 1], [0, 1])).float()
    images = generator(torch.zeros(2, config.latent), coordinates)
    assert images.shape == (2, 3, 8, 8)
    images.sum().backward()
    assert all(block.place.columns.weight.grad.abs().sum() > 0 for block in generator.blocks)
