"""Latents that move inside of the network, from cell to cell of the stem."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zellige.engine.library import load
from zellige.engine.panorama.renderer import Renderer
from zellige.engine.panorama.scene import Region
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.generator import ConditionalNorm, Generator
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.engine.systems.coco_gan.spread import Cells
from zellige.errors import TaskError

Model = Callable[..., CocoGan]
MOVES = [(False, True), (True, False), (True, True)]
moves = pytest.mark.parametrize("moving", MOVES, ids=["across", "down", "both ways"])
# Turns down and across of models with dense places.
TURNS = {"dense": (1, 3), "dense torus": (2, 2)}


def network(patch: int = 8, **chosen: object) -> Generator:
    torch.manual_seed(0)
    config = CocoGanConfig(
        topology="torus", rows=4, columns=6, patch=patch, latent=5, width=2, dense=True, padding="none",
        condition_std=0.2, condition_scale=1, **chosen,
    )  # fmt: skip
    made = Generator(config, spectral=False).double().eval().requires_grad_(False)
    for name, statistics in made.named_buffers():
        if name.endswith("running_mean"):
            statistics.normal_(std=0.1)
    return made


def moving_latents(generator: Generator, block: tuple[int, int], moving: tuple[bool, bool]) -> Tensor:
    inside = generator.config.inside
    rows, columns = (inside.count(n) if moves else 1 for n, moves in zip(block, moving, strict=True))
    return torch.rand(2, rows, columns, 5, generator=torch.Generator().manual_seed(1)).double() * 2 - 1


def by_the_book(generator: Generator, latents: Tensor, coordinates: Tensor, block: tuple[int, int]) -> Tensor:
    """The picture with every latent-dependent number written out for every cell, by torch's own bilinear resampling."""
    down, across = (2 * n + 2 * (generator.margin + 1) for n in block)
    cells = latents.expand(-1, down, across, -1)

    def at(values: Tensor, scale: int, margin: int) -> Tensor:
        """Numbers [N, C, S, T] of a map's cells from those of the stem's, [N * R * T, C]."""
        grid = values.unflatten(0, cells.shape[:3]).permute(0, 3, 1, 2)
        fine = F.interpolate(grid, scale_factor=float(scale), mode="bilinear") if scale > 1 else grid
        cut = (generator.margin + 1) * scale - margin
        return fine[:, :, cut : fine.shape[2] - cut, cut : fine.shape[3] - cut]

    def normed(norm: ConditionalNorm, x: Tensor, scale: int, margin: int) -> Tensor:
        factor, shift = (at(layer(cells.flatten(0, 2)), scale, margin) for layer in (norm.scale, norm.shift))
        mean, var = (t[:, None, None] for t in (norm.running_mean, norm.running_var))
        return factor * (x - mean) / (var + norm.eps).sqrt() + shift

    x, scale = at(generator.stem(cells.flatten(0, 2)), 1, generator.margin), 1
    for part in generator.blocks:
        place = part.place
        corner = place_by_the_book(place, coordinates, at(place.gains(cells.flatten(0, 2)), scale, part.margin), part)
        y = normed(part.norm1, x, scale, part.margin) + corner
        x = F.interpolate(part.shortcut(x), scale_factor=2.0)[:, :, part.spare + 2 :, part.spare + 2 :]
        x = x[:, :, : x.shape[2] - part.spare - 2, : x.shape[3] - part.spare - 2]
        y, scale = part.conv1(F.relu(y)), scale * 2
        x = x + part.conv2(F.relu(normed(part.norm2, y, scale, part.beyond + 1)))
    return torch.tanh(generator.to_image(F.relu(generator.norm(x))))


def place_by_the_book(place: object, coordinates: Tensor, gains: Tensor, part: object) -> Tensor:
    count, side = len(place.waves), place.side
    angles = torch.atan2(coordinates[:, 1::2], coordinates[:, ::2])  # of both axes of a torus
    corner = (angles / np.pi + 1) * torch.tensor([axis.patches / 2 for axis in place.axes])
    rows, columns = (corner[:, k, None] + (torch.arange(gains.shape[2 + k]) - part.margin + 0.5) / side for k in (0, 1))
    waves = torch.tensor(place.waves, dtype=torch.float64)
    phase = (
        2
        * np.pi
        * (waves[:, 0, None, None] * rows[:, None, :, None] + waves[:, 1, None, None] * columns[:, None, None, :])
    )
    field = gains[:, :count] * phase.cos() + gains[:, count : 2 * count] * phase.sin()
    cells = [
        (t * side).floor().long() % (axis.patches * side) for t, axis in zip((rows, columns), place.axes, strict=True)
    ]
    noise = place.noise[cells[0][:, :, None], cells[1][:, None, :]].permute(0, 3, 1, 2) * gains[:, 2 * count :]
    return F.conv2d(torch.cat([field, noise], dim=1), place.mix.weight)


class TestGenerator:
    @moves
    @pytest.mark.parametrize("patch", [4, 16])
    def test_every_number_that_follows_the_latent_does_so_in_every_cell(
        self, patch: int, moving: tuple[bool, bool]
    ) -> None:
        generator, block = network(patch), (2, 3)
        latents = moving_latents(generator, block, moving)
        coordinates = torch.from_numpy(generator.config.lattice.micro([1, 3], [5, 2]))
        made = generator(latents, coordinates, block)
        assert made.shape == (2, 3, 2 * patch, 3 * patch) and made.std() > 0.05
        torch.testing.assert_close(made, by_the_book(generator, latents, coordinates, block), rtol=0, atol=1e-6)

    @moves
    def test_a_latent_that_stays_makes_the_still_picture(self, moving: tuple[bool, bool]) -> None:
        generator, block = network(), (3, 2)
        still = moving_latents(generator, block, moving)[:, 0, 0]
        latents = still[:, None, None].expand_as(moving_latents(generator, block, moving))
        coordinates = torch.from_numpy(generator.config.lattice.micro([1, 3], [5, 2]))
        torch.testing.assert_close(generator(latents, coordinates, block), generator(still, coordinates, block))


class TestCells:
    def test_values_between_cells_lie_on_straight_lines(self) -> None:
        values = torch.tensor([0.0, 8.0, 4.0, 4.0]).view(1, 1, 4, 1)
        fine = Cells(4, 3, (1, 7)).across(values)
        assert fine.shape == (1, 1, 7, 1)
        # Cell 0's centre is at 1.5 of the finer cells; the map's first is number 3.
        assert fine.flatten().tolist() == [3.0, 5.0, 7.0, 7.5, 6.5, 5.5, 4.5]

    def test_a_map_of_the_stems_size_has_its_own_values(self) -> None:
        values = torch.arange(12.0).view(1, 3, 4, 1)
        assert Cells(1, 1, (1, 2)).down(Cells(1, 1, (1, 2)).across(values)).flatten().tolist() == [5.0, 6.0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", TURNS)
def test_blocks_batches_and_threads_change_no_bit(model: Model, kind: str, precision: str) -> None:
    loaded = model(kind, precision)
    (height, width), (down, across) = loaded.size, TURNS[kind]
    scene = loaded.scene(across * width, down * height, seed=5)
    assert scene.inside and scene.cells and scene.block != (1, 1)
    whole = Renderer(loaded.patches, 64).region(scene, scene.whole, "float")
    threads = torch.get_num_threads()
    for block in ((1, 1), (1, 3), (2, 1), (3, 5)):
        for batch, count in ((1, 1), (7 * block[0] * block[1], 2)):
            torch.set_num_threads(count)
            try:
                made = Renderer(loaded.patches, batch).region(replace(scene, block=block), scene.whole, "float")
            finally:
                torch.set_num_threads(threads)
            assert torch.equal(made, whole), (block, batch, count)


@pytest.mark.parametrize("kind", TURNS)
def test_no_pixel_is_made_twice_and_half_steps_can_be_had(model: Model, kind: str, tmp_path: Path) -> None:
    loaded = model(kind)
    (height, width), (down, across) = loaded.size, TURNS[kind]
    size = across * width, down * height
    once = loaded.panorama(tmp_path / "once.png", *size, "1GiB")
    twice = loaded.panorama(tmp_path / "twice.png", *size, "1GiB", blend="half-step")
    pixels = once["patches"] * loaded.config.patch**2
    assert pixels == size[0] * size[1] and once["block"] == list(loaded.scene(*size).block)
    assert twice["patches"] > 1.9 * once["patches"] and twice["block"] != once["block"]


def test_a_small_budget_takes_smaller_blocks_and_makes_the_same_picture(model: Model, tmp_path: Path) -> None:
    loaded = model("dense wide")
    width = 2 * loaded.size[1]
    large = loaded.panorama(tmp_path / "large.png", width, None, "1GiB")
    small = loaded.panorama(tmp_path / "small.png", width, None, large["predicted_memory_bytes"] * 3 // 4)
    assert np.prod(small["block"]) < np.prod(large["block"])
    assert (tmp_path / "small.png").read_bytes() == (tmp_path / "large.png").read_bytes()


def test_other_ways_to_blend_are_refused(model: Model) -> None:
    with pytest.raises(TaskError, match="'half-step', or not at all"):
        model("dense").scene(64, blend="feather")  # type: ignore[arg-type]


def test_an_exported_strip_is_a_model_like_the_others(
    model: Model, model_file: Callable[..., Path], tmp_path: Path
) -> None:
    kind = "dense torus"  # in which latents move both ways
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from zellige.export.onnx import export_onnx

    path = tmp_path / "strip.onnx"
    export_onnx(model_file(kind), path, task="strip")
    ours, theirs = model(kind), load(path, "cpu")
    (height, width), (down, across) = ours.size, TURNS[kind]
    pictures = []
    for made in (ours, theirs):
        scene = made.scene(across * width, down * height, seed=5)
        pictures.append(made.render(scene, Region(3, 5, height - 3, width)).astype(int))
        pictures.append(made.generate(2, seed=3).astype(int))
    assert np.abs(pictures[0] - pictures[2]).max() <= 1 and np.abs(pictures[1] - pictures[3]).max() <= 1
    assert pictures[0].std() > 5
    with pytest.raises(TaskError, match="single patches"):
        theirs.interpolate_coordinates(0, 2, 2)
