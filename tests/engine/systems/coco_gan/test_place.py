"""What cells of a map add by their own place: equal places get equal values, whichever patch they belong to."""

import math

import pytest
import torch

from zellige.engine.panorama.lattice import Lattice, Topology
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.engine.systems.coco_gan.place import Place
from zellige.engine.systems.coco_gan.spread import Window

LATTICES: list[tuple[Topology, int, int]] = [("plane", 4, 6), ("cylinder", 4, 32), ("torus", 8, 8)]
LATENT = torch.linspace(-1, 1, 5, dtype=torch.float64)[None]


def coordinates_of(lattice: Lattice, row: float, column: float) -> torch.Tensor:
    return torch.from_numpy(lattice.micro([row], [column]))


def field_of(
    place: Place, coordinates: torch.Tensor, latent: torch.Tensor, block: tuple[int, int] = (1, 1), margin: int = 0
) -> torch.Tensor:
    field: torch.Tensor = place(Window(latent, coordinates, block), margin)
    return field


def dense(topology: Topology, rows: int, columns: int, **chosen: object) -> CocoGanConfig:
    return CocoGanConfig(
        topology=topology, rows=rows, columns=columns, dense=True, padding="none", latent=5, width=2,
        condition_std=0.1, condition_scale=1, **chosen,
    )  # fmt: skip


class TestPlace:
    @pytest.mark.parametrize(("topology", "rows", "columns"), LATTICES)
    @pytest.mark.parametrize(("down", "across"), [(0.0, 0.5), (0.5, 0.0), (0.5, 0.5), (0.25, 0.75)])
    def test_overlapping_patches_add_the_same_where_they_overlap(
        self, topology: Topology, rows: int, columns: int, down: float, across: float
    ) -> None:
        lattice, side = Lattice(topology, rows, columns), 8
        place = Place(lattice, 5, 3, side).double()
        one = field_of(place, coordinates_of(lattice, 1, 2), LATENT)
        other = field_of(place, coordinates_of(lattice, 1 + down, 2 + across), LATENT)
        a, b = int(down * side), int(across * side)
        torch.testing.assert_close(one[:, :, a:, b:], other[:, :, : side - a, : side - b])

    @pytest.mark.parametrize(("topology", "rows", "columns"), LATTICES)
    def test_a_margin_holds_what_the_neighbours_hold(self, topology: Topology, rows: int, columns: int) -> None:
        lattice = Lattice(topology, rows, columns)
        place = Place(lattice, 5, 3, 4).double()
        wide = field_of(place, coordinates_of(lattice, 1, 1), LATENT, block=(2, 3), margin=3)
        assert wide.shape == (1, 3, 14, 18)
        torch.testing.assert_close(wide[:, :, 3:7, 7:11], field_of(place, coordinates_of(lattice, 1, 2), LATENT))
        torch.testing.assert_close(
            wide[:, :, 11:, :3], field_of(place, coordinates_of(lattice, 3, 0), LATENT)[:, :, :3, 1:]
        )

    def test_the_last_column_is_followed_by_the_first(self) -> None:
        lattice = Lattice("cylinder", 4, 12)
        place = Place(lattice, 5, 3, 8).double()
        torch.testing.assert_close(
            field_of(place, coordinates_of(lattice, 0, 11.5), LATENT)[..., 4:],
            field_of(place, coordinates_of(lattice, 0, 0), LATENT)[..., :4],
        )

    def test_a_cell_sees_the_wave_at_its_own_centre(self) -> None:
        lattice, side = Lattice("cylinder", 4, 12), 4
        place = Place(lattice, 5, 1, side).double()
        for parameter in place.parameters():
            torch.nn.init.zeros_(parameter)
        chosen, waves = 30, len(place.waves)
        place.gains.bias.data[[chosen, waves + chosen]] = torch.tensor([0.6, -1.5], dtype=torch.float64)
        place.mix.weight.data[0, chosen] = 2.0
        down, across = place.waves[chosen]
        expected = torch.empty(side, side, dtype=torch.float64)
        for a in range(side):
            for b in range(side):
                phase = 2 * math.pi * (down * (3 + (a + 0.5) / side) + across * (5 + (b + 0.5) / side))
                expected[a, b] = 2 * (0.6 * math.cos(phase) - 1.5 * math.sin(phase))
        torch.testing.assert_close(field_of(place, coordinates_of(lattice, 3, 5), LATENT)[0, 0], expected)

    def test_noise_is_white_has_unit_variance_and_goes_round(self) -> None:
        lattice, side = Lattice("cylinder", 4, 12), 8
        place = Place(lattice, 5, 1, side).double()
        for parameter in place.parameters():
            torch.nn.init.zeros_(parameter)
        waves = len(place.waves)
        place.gains.bias.data[2 * waves + 3] = 1.0
        place.mix.weight.data[0, waves + 3] = 1.0
        field = field_of(place, coordinates_of(lattice, 0, 0), LATENT, block=(12, 12))[0, 0]
        once = field[:32]
        assert abs(once.mean()) < 0.05 and 0.9 < once.var() < 1.1
        for shift in ((0, 1), (1, 0), (1, 1), (4, 0), (0, 4)):
            assert abs((once * once.roll(shift, (0, 1))).mean()) < 0.06
        torch.testing.assert_close(
            field_of(place, coordinates_of(lattice, 1, 11), LATENT, block=(2, 2))[0, 0, :, 8:], once[8:24, :8]
        )

    def test_places_between_cells_take_the_nearest_noise(self) -> None:
        lattice = Lattice("cylinder", 4, 12)
        place = Place(lattice, 5, 3, 4).double()
        place.mix.weight.data[:, : len(place.waves)] = 0
        one, near = (field_of(place, coordinates_of(lattice, 1, column), LATENT) for column in (2, 2.1))
        torch.testing.assert_close(one, near)

    def test_every_latent_has_a_field_of_its_own(self) -> None:
        lattice = Lattice("cylinder", 4, 12)
        place, coordinates = Place(lattice, 5, 3, 8).double(), coordinates_of(lattice, 1, 2)
        assert (field_of(place, coordinates, LATENT) - field_of(place, coordinates, LATENT.flip(1))).abs().max() > 0.1

    def test_fields_start_with_unit_variance(self) -> None:
        torch.manual_seed(0)
        lattice = Lattice("cylinder", 4, 32)
        place = Place(lattice, 64, 32, 8)
        cells = lattice.cells()
        coordinates = torch.from_numpy(lattice.micro(cells[:, 0], cells[:, 1])).float()
        field = field_of(place, coordinates, torch.rand(len(cells), 64) * 2 - 1)
        assert 1.0 < field.var().item() < 1.5  # 1 of the waves, 1/4 of the noise

    @pytest.mark.parametrize("side", [2, 4, 8, 16, 32])
    def test_waves_are_four_cells_or_a_patch_to_one_turn_long_and_whole_on_cyclic_axes(self, side: int) -> None:
        waves = torch.tensor(Place(Lattice("cylinder", 4, 32), 5, 1, side).waves)
        turns = waves[:, 1] * 32
        assert torch.equal(turns, turns.round())
        slack = 0.5 / 32  # rounding to whole turns
        assert waves.norm(dim=1).max() <= min(side / 4, 1) + slack and waves.norm(dim=1).min() > 0
        assert len(waves) == len(waves.unique(dim=0)) > 16

    def test_a_place_for_millions_of_patches_is_built_without_memory(self) -> None:
        with torch.device("meta"):
            place = Place(Lattice("torus", 4096, 4096), 5, 3, 256)
        assert place.noise.shape == (2**20, 2**20, 16) and place.noise.is_meta

    def test_noise_is_the_same_numbers_for_ever(self) -> None:
        noise = Place(Lattice("cylinder", 4, 12), 5, 3, 8).noise
        expected = torch.tensor([0.40227991342544556, -1.0498347282409668, 0.5107120871543884])
        assert noise.shape == (32, 96, 16) and torch.equal(noise[5, 7, :3], expected)


class TestDenseGenerator:
    @pytest.mark.parametrize(("topology", "rows", "columns"), LATTICES)
    @pytest.mark.parametrize("patch", [4, 8, 16])
    @pytest.mark.parametrize("extra", [0, 1])
    def test_neighbouring_patches_are_parts_of_one_picture(
        self, topology: Topology, rows: int, columns: int, patch: int, extra: int
    ) -> None:
        config = dense(topology, rows, columns, patch=patch, extra_blocks=extra)
        generator, lattice = Generator(config, spectral=False).double().eval(), config.lattice
        whole = generator(LATENT, coordinates_of(lattice, 0, 1), (3, 4))
        assert whole.shape == (1, 3, 3 * patch, 4 * patch)
        for row, column in [(0, 0), (1, 2), (0.5, 1.5)]:
            top, left = int(row * patch), int(column * patch)
            torch.testing.assert_close(
                generator(LATENT, coordinates_of(lattice, row, 1 + column)),
                whole[:, :, top : top + patch, left : left + patch],
            )

    def test_the_wrap_is_no_border(self) -> None:
        config = dense("cylinder", 3, 8, patch=8)
        generator = Generator(config, spectral=False).double().eval()
        across = generator(LATENT, coordinates_of(config.lattice, 0, 7), (2, 2))
        torch.testing.assert_close(across[:, :, :8, 8:], generator(LATENT, coordinates_of(config.lattice, 0, 0)))

    @pytest.mark.parametrize(("topology", "rows", "columns"), LATTICES)
    def test_every_weight_of_a_place_learns(self, topology: Topology, rows: int, columns: int) -> None:
        config = dense(topology, rows, columns, patch=8)
        generator = Generator(config).train()
        coordinates = torch.from_numpy(config.lattice.micro([0, 1], [0, 1])).float()
        generator(torch.rand(2, 5), coordinates).square().sum().backward()
        for block in generator.blocks:
            assert all(weight.grad.abs().sum() > 0 for weight in block.place.parameters())
