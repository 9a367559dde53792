"""Makes pictures of micro patches: images, panoramas, regions, interpolations, and images beyond the boundary."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import SizeError, TaskError

from ...device import available_memory, parse_bytes, precision_of
from ...files.pictures import to_uint8
from ...panorama.latents import AnchoredLatents, StillLatents, fixed_latent, fixed_latents
from ...panorama.maps import MapLatents, RegionMap, read_map
from ...panorama.patches import PatchMaker
from ...panorama.render import predict_render, render_file
from ...panorama.renderer import Renderer
from ...panorama.scene import LatentField, Region, Scene, turns
from ...rewrite.plan import Choice
from ...runtimes import As, checked_as, converted
from .generator import Generator
from .graph_patches import GraphPatches
from .latents import checked_latents
from .patches import CocoGanPatches

__all__ = ["PatchPictures"]

Pixels = npt.NDArray[np.uint8]
_BATCH = 128
_SOFTEN = 2  # micro patches over which regions of a map blend
_VARY = 0.3  # the share of the path through anchors in the regions of a map


class PatchPictures:
    """Makes a COCO-GAN's pictures with any runtime; `zellige.load` gives it for an exported file of patches.

    Args:
        generator: the generator in evaluation mode, on its device, in its precision. With `graphs` only its shapes are
            used, so it may be on the meta device.
        name: the model's name in reports and errors.
        graphs: makes the patches instead of the generator.
    Attributes:
        patches: the `PatchMaker`, the only part of the model that renders use.
    """

    system = "coco-gan"
    batch = 16  # images that are made together

    def __init__(self, generator: Generator, name: str, graphs: GraphPatches | None = None) -> None:
        self.generator, self.name, self.config = generator, name, generator.config
        self.patches: PatchMaker = CocoGanPatches(generator, graphs)
        self.device, self.dtype = self.patches.device, self.patches.dtype
        self._renderer = Renderer(self.patches, _BATCH, name)
        self.choices: list[Choice] = []

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.config.size

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        return precision_of(self.dtype)

    @property
    def still_block(self) -> tuple[int, int]:
        """Micro patches, down and across, that are made at once if the latent does not move."""
        return self._block((False, False))

    def generate(self, count: int, seed: int = 0, *, first: int = 0, as_: As = "numpy") -> Any:
        """Images under a seed; image k is the same for every `count`, on one device with one number of threads.

        Args:
            count: number of images, 1 or more.
            seed: 0 or more.
            first: number of the first image.
            as_: "numpy" for uint8 [count, H, W, 3]; "torch" for the same as a tensor on the model's device; "cupy" for
                the same as a CuPy array there; "float" for a float32 tensor [count, 3, H, W] in [-1, 1], not rounded to
                bytes.
        Returns:
            the images in the kind that `as_` names.
        """
        as_ = checked_as(as_, self.device)
        jobs = self._jobs(fixed_latents(seed, count, self.config.latent, first), 0)
        if as_ == "float":
            return converted(self._made(jobs, "float").permute(0, 3, 1, 2).contiguous(), as_, self.name)
        return converted(self._made(jobs, "uint8"), as_, self.name)

    def warm(self, counts: Iterable[int]) -> None:
        """Do now the extra work of the first calls of `generate` for these numbers of images."""
        for count in sorted(set(counts)):
            self.generate(count)

    def from_latents(self, latents: npt.ArrayLike | Tensor, beyond: int = 0) -> Pixels:
        """One image for each latent; all patches of an image have its latent.

        Args:
            latents: [n, latent] in [-1, 1], an array, a tensor or nested lists.
            beyond: extra patches on both ends of every open axis.
        Returns:
            uint8 [n, H, W, 3].
        Raises:
            ShapeError: latents have another shape.
            ValuesError: a value is not finite, or outside of [-1, 1].
        """
        jobs = self._jobs(checked_latents(latents, self.config.latent), beyond)
        return self._made(jobs, "uint8").cpu().numpy()

    def region(self, seed: int, region: Region, index: int = 0) -> Pixels:
        """A region of image `index` under a seed, equal to the crop of the whole; only its own patches are made.

        Returns:
            uint8 [region.height, region.width, 3].
        """
        scene = self._still(fixed_latent(seed, index, self.config.latent))
        return self._renderer.region(scene, region).cpu().numpy()

    def beyond(self, count: int, seed: int = 0, patches: int = 1) -> Pixels:
        """Images extended by `patches` micro patches on both ends of every open axis (beyond-boundary generation).

        Content outside is good only after post-training, and only one patch deep.

        Returns:
            uint8 [count, H + 2 patches P, W + 2 patches P, 3]; a cyclic axis is not extended.
        """
        return self.from_latents(fixed_latents(seed, count, self.config.latent), beyond=patches)

    def interpolate(self, seed: int, frames: int, images: tuple[int, int] = (0, 1)) -> Pixels:
        """Walk in a straight line from one latent to another; all patches of a frame change in step.

        z_t = (1 - t) z_a + t z_b, which stays inside of the cube that latents are drawn from.

        Returns:
            uint8 [frames, H, W, 3]; the first and the last are images that `generate` gives.
        """
        if frames < 2:
            raise SizeError(f"an interpolation needs 2 frames or more, not {frames}")
        start, end = (fixed_latent(seed, k, self.config.latent) for k in images)
        share = np.linspace(0, 1, frames)[:, None]
        return self.from_latents((1 - share) * start + share * end)

    def interpolate_coordinates(self, seed: int, rows: int, columns: int, index: int = 0) -> Pixels:
        """Micro patches on a fine grid of coordinates under one latent, whose content slides from patch to patch.

        The grid covers an open axis from the first lattice position to the last, and a cyclic axis once around.

        Returns:
            uint8 [rows, columns, P, P, 3].
        """
        if min(rows, columns) < 1:
            raise SizeError(f"a grid of {columns}x{rows} patches is empty; give 1 or more each way")
        lattice = self.config.lattice
        sweeps = [
            np.linspace(0, axis.patches, count, endpoint=False)
            if axis.cyclic
            else np.linspace(0, axis.patches - 1, count)
            for axis, count in zip(lattice.axes, (rows, columns), strict=True)
        ]
        coordinates = lattice.micro(np.repeat(sweeps[0], columns), np.tile(sweeps[1], rows))
        latent = self._tensor(fixed_latent(seed, index, self.config.latent))
        patches = self._renderer.patches(
            rows * columns, lambda start, stop: (latent.expand(stop - start, -1), self._tensor(coordinates[start:stop]))
        )
        return to_uint8(patches).reshape(rows, columns, self.config.patch, self.config.patch, -1)

    def panorama(
        self,
        out: str | Path,
        width: int | None = None,
        height: int | None = None,
        memory: str | int | None = None,
        seed: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        map: str | Path | None = None,
        legend: str | Path | None = None,
        soften: float | None = None,
        vary: float | None = None,
        region: Region | None = None,
        dry_run: bool = False,
        compression: str | None = None,
        quality: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Render a panorama of any size into a file, within a memory budget.

        A picture of one turn has one latent, and its patches lie edge to edge. In a picture of several turns the latent
        moves along a closed path through one anchor for each turn. Patches are then laid at every half step and
        blended, so the picture keeps changing, has no seam, and closes on itself. The same seed, size, precision,
        device and number of threads give the same pixels.

        With a map its colours say which latents lie where, also in a picture of one turn.

        Args:
            out: a .tif, .tiff, .png, .zarr or .dzi file, which appears when it is complete.
            width, height: size in pixels: a multiple of one turn on a cyclic axis, the model's own on an open axis.
                None takes the model's own.
            memory: budget such as "512MiB", or bytes; None takes half of the free memory.
            seed: the seed of the latents, 0 or more.
            progress: called with (pixels done, pixels in all).
            map: a small picture, which is stretched over the whole panorama; see `read_map`.
            legend: a TOML file with the latent of each of its colours; see `read_legend`.
            soften: width in pixels of the panorama over which regions blend; 0 is as sharp as patches can be. None
                takes 2 micro patches.
            vary: the share, 0 to 1, of the path through the seed's anchors in the regions' latents. 0 repeats a region
                at every turn; None takes 0.3. In one turn nothing varies.
            region: the part of the panorama that the file gets; None for all of it.
            dry_run: write nothing, and predict time, memory and the file's size; see `predict_render`.
            compression: "deflate", "none", "zstd" or "jpeg" in .tif; "zstd" or "none" in .zarr; "jpeg" or "png" in
                .dzi. None takes the first.
            quality: of JPEG, from 1 to 100; None takes 95.
            metadata: names and values that the file holds beside the model's name, the precision and the seed.
        Returns:
            a report with the keys of `render_file`, or of `predict_render`, and device, precision, seed, out, turns;
            with a region it too; with a map also map, legend, soften, vary, regions (colour, latent and share of each)
            and map_pixels_moved.
        Raises:
            SizeError: the model makes no panorama of this size, the region is not inside it, or `soften` or `vary` is
                out of bounds.
            TaskError: a map without a legend, or `legend`, `soften` or `vary` without a map.
            DataError, MapError: the map or its legend cannot be read, or a colour has no latent.
            BudgetError: not one patch fits.
            OutputError: the file cannot be written.
            MissingExtraError: a package that writes the format is not installed.
            ValuesError: the model gives values that are not finite.
        """
        if self.config.channels != 3:
            raise TaskError(f"panorama files hold RGB, not the {self.config.channels} channels of {self.name}")
        budget = available_memory(self.device) // 2 if memory is None else parse_bytes(memory)
        regions = self._regions(map, {"legend": legend, "soften": soften, "vary": vary})
        soften = _SOFTEN * self.config.patch if soften is None else soften
        vary = _VARY if vary is None else vary
        scene = (
            self.scene(width, height, seed)
            if regions is None
            else self.mapped(regions, width, height, seed, soften=soften, vary=vary)
        )
        known = {"model": self.name, "precision": self.precision, "seed": str(seed)} | dict(metadata or {})
        asked: dict[str, Any] = {
            "budget": budget, "name": self.name, "region": region, "compression": compression, "quality": quality,
        }  # fmt: skip
        if dry_run:
            report = predict_render(self.patches, scene, Path(out), **asked)
        else:
            report = render_file(self.patches, scene, Path(out), advance=progress, metadata=known, **asked)
        context = {"device": str(self.device), "precision": self.precision, "seed": seed, "out": str(out)}
        rows, columns = self.config.size
        context |= {"turns": [scene.height // rows, scene.width // columns]}
        if region is not None:
            context["region"] = [region.left, region.top, region.width, region.height]
        if regions is not None:
            context |= {"map": str(map), "legend": str(legend), "soften": soften, "vary": vary} | regions.report()
        return report | context

    def scene(self, width: int | None = None, height: int | None = None, seed: int = 0) -> Scene:
        """The scene that `panorama` renders without a map; `render` renders regions of it."""
        counts = self._turns(width, height)
        if counts == (1, 1):
            return self._still(fixed_latent(seed, 0, self.config.latent))
        lattice = self.config.lattice
        field = AnchoredLatents(seed, self.config.latent, counts, (lattice.rows, lattice.columns))
        return self._laid(counts, field, (counts[0] > 1, counts[1] > 1))

    def mapped(
        self,
        regions: RegionMap,
        width: int | None = None,
        height: int | None = None,
        seed: int = 0,
        *,
        soften: float = 0,
        vary: float = 0,
    ) -> Scene:
        """The scene that `panorama` renders with a map; arguments are those of `panorama`, but for their defaults."""
        counts = self._turns(width, height)
        patch, lattice = self.config.patch, self.config.lattice
        longest = max(counts[0] * lattice.rows, counts[1] * lattice.columns) * patch
        if not 0 <= soften <= longest:
            raise SizeError(f"soften must be from 0 to {longest}, the picture's longer side in pixels, not {soften:g}")
        field = MapLatents(regions, lattice, counts, seed, soften=soften / patch, vary=vary)
        return self._laid(counts, field, field.moving)

    def render(self, scene: Scene, region: Region) -> Pixels:
        """Render a region of a scene, uint8 [height, width, 3]; it equals the same crop of the whole."""
        return self._renderer.region(scene, region).cpu().numpy()

    def _regions(self, map: str | Path | None, others: dict[str, Any]) -> RegionMap | None:
        """Read the map, if there is one."""
        given = [name for name, value in others.items() if value is not None]
        if map is None and given:
            raise TaskError(f"{given[0]} goes with a map; give the map too, or leave {given[0]} out")
        if map is None:
            return None
        if others["legend"] is None:
            raise TaskError("a map needs a legend, a TOML file that says which latent each of its colours means")
        return read_map(Path(map), Path(others["legend"]), self.config.latent)

    def _turns(self, width: int | None, height: int | None) -> tuple[int, int]:
        """Turns (vertically, horizontally) of a picture of this size."""
        own_height, own_width = self.config.size
        return turns(self.config.lattice, self.config.patch, width if width is not None else own_width,
                     height if height is not None else own_height)  # fmt: skip

    def _laid(self, counts: tuple[int, int], latents: LatentField, moving: tuple[bool, bool]) -> Scene:
        """A scene of so many turns."""
        lattice = self.config.lattice
        rows, columns = counts[0] * lattice.rows, counts[1] * lattice.columns
        return Scene(lattice, self.config.patch, rows, columns, latents, moving=moving, block=self._block(moving))

    def _still(self, latent: npt.NDArray[Any], beyond: int = 0) -> Scene:
        lattice = self.config.lattice
        cells = lattice.cells(beyond)
        first, last = cells.min(axis=0), cells.max(axis=0)
        return Scene(
            lattice,
            self.config.patch,
            int(last[0] - first[0] + 1),
            int(last[1] - first[1] + 1),
            StillLatents(latent),
            first=(int(first[0]), int(first[1])),
            block=self.still_block,
        )

    def _block(self, moving: tuple[bool, bool]) -> tuple[int, int]:
        """Patches that are made at once: up to 4 x 4 with one latent if the maker makes blocks, else one.

        Margins cost multiplications: for `planet` a single patch takes 2.9 times as many for each patch as without a
        margin, a column of four 2.0 times, and a block of 4 x 4 1.4 times.
        """
        rows, columns = (
            1 if moves or not self.patches.blocks else min(axis.patches, 4)
            for moves, axis in zip(moving, self.config.lattice.axes, strict=True)
        )
        return rows, columns

    def _jobs(self, latents: npt.NDArray[Any], beyond: int) -> list[tuple[Scene, Region]]:
        """The jobs that render whole images, one for each latent."""
        scenes = [self._still(latent, beyond) for latent in latents]
        return [(scene, Region(0, 0, scene.height, scene.width)) for scene in scenes]

    def _made(self, jobs: list[tuple[Scene, Region]], output: Literal["uint8", "float"]) -> Tensor:
        """Render equally large regions to [n, H, W, channels] on the device."""
        made = [self._renderer.regions(jobs[k : k + self.batch], output) for k in range(0, len(jobs), self.batch)]
        return torch.cat(made) if len(made) > 1 else made[0]

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, torch.float32)
