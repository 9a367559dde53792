"""Makes pictures of micro patches: images, panoramas, regions, interpolations, and images beyond the boundary."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import ConfigError, SizeError, TaskError

from ...device import available_memory, parse_bytes, precision_of
from ...files.pictures import to_uint8
from ...panorama.identity import pixels_of
from ...panorama.journal import Forms, Journal
from ...panorama.latents import AnchoredLatents, StillLatents, fixed_latent, fixed_latents
from ...panorama.maps import MapLatents, RegionMap, read_map
from ...panorama.patches import PatchMaker
from ...panorama.render import predict_render, render_file
from ...panorama.renderer import Renderer
from ...panorama.scene import LatentField, Region, Scene, turns
from ...panorama.workers import devices_of
from ...panorama.workers.processes import Crew
from ...panorama.workers.ray import Nodes
from ...rewrite.plan import Choice
from ...runtimes import As, checked_as, converted
from .editing import Asked, edit_file, noted
from .generator import Generator
from .graph_patches import GraphPatches
from .latents import checked_latents
from .patches import CocoGanPatches

__all__ = ["PatchPictures"]

Pixels = npt.NDArray[np.uint8]
Blend = Literal["half-step"]
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
        file: the model's file, without which panoramas can be neither resumed nor edited.
    Attributes:
        patches: the `PatchMaker`, the only part of the model that renders use.
    """

    system = "coco-gan"
    batch = 16  # images that are made together

    def __init__(
        self, generator: Generator, name: str, graphs: GraphPatches | None = None, file: Path | None = None
    ) -> None:
        self.generator, self.name, self.config = generator, name, generator.config
        self.patches: PatchMaker = CocoGanPatches(generator, graphs)
        self.device, self.dtype = self.patches.device, self.patches.dtype
        self._renderer = Renderer(self.patches, _BATCH, name)
        self.choices: list[Choice] = []
        self.runtime = "torch" if graphs is None else graphs.runtime
        self.file = file

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
        if self.patches.only not in (None, (1, 1)):
            raise TaskError(f"{self.name} makes no single patches; export the graph 'patches', or load the checkpoint")
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
        resume: bool = False,
        compression: str | None = None,
        quality: int | None = None,
        metadata: Mapping[str, str] | None = None,
        blend: Blend | None = None,
        workers: int = 1,
        devices: str | Sequence[str] | None = None,
        ray: str | None = None,
    ) -> dict[str, Any]:
        """Render a panorama of any size into a file, within a memory budget.

        A picture of one turn has one latent, and its patches lie edge to edge. In a picture of several turns the latent
        moves along a closed path through one anchor for each turn, so the picture keeps changing, has no seam, and
        closes on itself. A model with dense places moves it inside of the network, from cell to cell. The others lay
        patches at every half step and blend them. The same seed, size, precision, device and number of threads give the
        same pixels; with dense places any number does.

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
            resume: go on with the unfinished picture that a killed run has left, to the bytes that it would have had.
                Without one the picture is begun anew. If this run fails too, its unfinished picture stays.
            compression: "deflate", "none", "zstd" or "jpeg" in .tif; "zstd" or "none" in .zarr; "jpeg" or "png" in
                .dzi. None takes the first.
            quality: of JPEG, from 1 to 100; None takes 95.
            metadata: names and values that the file holds beside the model's name, the precision and the seed.
            blend: "half-step" lays blended half steps with dense places too; None takes the model's best way.
            workers: processes that make the patches, from 1 to 256. They divide the memory and torch's threads, and
                give the bytes of one process with as many threads as each has; with dense places any number does.
            devices: a CUDA device for each worker, such as ["cuda:0", "cuda:1"]; 1 worker then means as many as there
                are.
            ray: "host:port" of a Ray cluster whose nodes make the picture, a .zarr in a folder that all of them share,
                or "auto" for the cluster of this machine. The memory then is that of each task, and None takes half of
                the free memory of this machine, divided by its cores.
        Returns:
            a report with the keys of `render_file`, or of `predict_render`, and device, precision, seed, out, turns;
            with a region it too; with a map also map, legend, soften, vary, regions (colour, latent and share of each)
            and map_pixels_moved.
        Raises:
            SizeError: the model makes no panorama of this size, the region is not inside it, or `soften` or `vary` is
                out of bounds.
            TaskError: a map without a legend, or `legend`, `soften` or `vary` without a map; or `ray` with workers or
                devices or for a prediction.
            DataError, MapError: the map or its legend cannot be read, or a colour has no latent.
            BudgetError: not one patch fits.
            WorkerError, DeviceError: there cannot be such workers, or one of them was killed; no Ray cluster answers,
                or it lost a part of the picture too often.
            OutputError: the file cannot be written, or its format cannot be resumed.
            ResumeError: the unfinished picture was begun otherwise, or is damaged.
            MissingExtraError: a package that writes the format is not installed.
            ValuesError: the model gives values that are not finite.
        """
        if self.config.channels != 3:
            raise TaskError(f"panorama files hold RGB, not the {self.config.channels} channels of {self.name}")
        if ray is not None and (workers != 1 or devices is not None):
            raise TaskError("a Ray cluster has workers of its own; leave out workers and devices, or leave out ray")
        if ray is not None and dry_run:
            raise TaskError("a prediction is made by this machine alone; leave out ray")
        crew_devices = devices_of(workers, devices, self.device)
        if self.patches.graph and any(device.type == "cuda" for device in crew_devices):
            raise TaskError(f"workers on CUDA devices run models by torch, and {self.name} runs by {self.runtime}")
        free = sum(available_memory(device) for device in {*crew_devices} or {self.device})
        cores = (os.cpu_count() or 1) if ray is not None and self.device.type == "cpu" else 1
        budget = free // 2 // cores if memory is None else parse_bytes(memory)
        regions = self._regions(map, {"legend": legend, "soften": soften, "vary": vary})
        soften = _SOFTEN * self.config.patch if soften is None else soften
        vary = _VARY if vary is None else vary
        scene = (
            self.scene(width, height, seed, blend=blend)
            if regions is None
            else self.mapped(regions, width, height, seed, soften=soften, vary=vary, blend=blend)
        )
        scene.check(scene.whole if region is None else region)
        asked: dict[str, Any] = {
            "budget": budget, "name": self.name, "region": region, "compression": compression, "quality": quality,
        }  # fmt: skip
        with (
            Crew(crew_devices) if crew_devices else nullcontext() as crew,
            nullcontext() if ray is None else Nodes(ray) as nodes,
        ):
            if dry_run:
                report = predict_render(self.patches, scene, Path(out), crew=crew, **asked)
            else:
                record = noted(self, scene, seed, region, blend, regions, map, legend, soften, vary)
                known = {"model": self.name, "precision": self.precision, "seed": str(seed)} | record
                journal = self._journal(Path(out), scene, seed, region, regions, soften, vary, resume=resume)
                report = render_file(
                    self.patches, scene, Path(out), advance=progress, metadata=known | dict(metadata or {}),
                    journal=journal, crew=crew, nodes=nodes, **asked,
                )  # fmt: skip
        context = {"device": str(self.device), "precision": self.precision, "seed": seed, "out": str(out)}
        rows, columns = self.config.size
        context |= {"turns": [scene.height // rows, scene.width // columns]}
        if region is not None:
            context["region"] = [region.left, region.top, region.width, region.height]
        if regions is not None:
            context |= {"map": str(map), "legend": str(legend), "soften": soften, "vary": vary} | regions.report()
        return report | context

    def edit(
        self,
        path: str | Path,
        out: str | Path,
        region: Region,
        seed: int | None = None,
        *,
        latents: str | Path | None = None,
        soften: float | None = None,
        memory: str | int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        map: str | Path | None = None,
        legend: str | Path | None = None,
    ) -> dict[str, Any]:
        """Give a region of a panorama's file another latent, and render the pixels anew that this changes.

        The latent moves smoothly from the old ones to the new one; see `EditedLatents`. All other pixels are copied, on
        a CPU to the bits that they would be rendered to. The new file lists its edits, so it can be edited too.

        Args:
            path: a .tif, .zarr, .png, or a .dzi with PNG tiles, that `panorama` or `edit` wrote with this model.
            out: the new file, of the same format. It may be `path`, which is replaced when the new file is complete.
            region: in pixels of the panorama. On a cyclic axis it may go round the closure.
            seed: the new latent is that of image 0 of this seed.
            latents: a .npy file with the new latent instead.
            soften: pixels outside of the region over which the new latent fades; None takes 2 micro patches.
            memory, progress: as of `panorama`.
            map, legend: where the files of the panorama's map are now; None takes the names that `panorama` was given.
        Returns:
            the report of `rewrite_file`, and device, precision, out, region, soften, seed and edits, their number.
        Raises:
            DataError: the file cannot be read, or does not say of which scene it is.
            TaskError: another model or precision made it, or the edit needs half steps in a picture that has none.
            MapError: the map or its legend is not what it was.
            SizeError: the region is empty, outside of the panorama or of the file, or `soften` is out of bounds.
            BudgetError: not one patch fits.
            OutputError: the file cannot be written, or is of another format.
        """
        asked = Asked(region, seed, None if latents is None else Path(latents), soften)
        files = (None if file is None else Path(file) for file in (map, legend))
        return edit_file(self, Path(path), Path(out), asked, memory, progress, *files)

    def scene(
        self, width: int | None = None, height: int | None = None, seed: int = 0, *, blend: Blend | None = None
    ) -> Scene:
        """The scene that `panorama` renders without a map; `render` renders regions of it."""
        counts = self._turns(width, height)
        if counts == (1, 1):
            return self._still(fixed_latent(seed, 0, self.config.latent))
        lattice = self.config.lattice
        field = AnchoredLatents(seed, self.config.latent, counts, (lattice.rows, lattice.columns))
        return self._laid(counts, field, (counts[0] > 1, counts[1] > 1), blend)

    def mapped(
        self,
        regions: RegionMap,
        width: int | None = None,
        height: int | None = None,
        seed: int = 0,
        *,
        soften: float = 0,
        vary: float = 0,
        blend: Blend | None = None,
    ) -> Scene:
        """The scene that `panorama` renders with a map; arguments are those of `panorama`, but for their defaults."""
        counts = self._turns(width, height)
        patch, lattice = self.config.patch, self.config.lattice
        longest = max(counts[0] * lattice.rows, counts[1] * lattice.columns) * patch
        if not 0 <= soften <= longest:
            raise SizeError(f"soften must be from 0 to {longest}, the picture's longer side in pixels, not {soften:g}")
        field = MapLatents(regions, lattice, counts, seed, soften=soften / patch, vary=vary)
        return self._laid(counts, field, field.moving, blend)

    def render(self, scene: Scene, region: Region) -> Pixels:
        """Render a region of a scene, uint8 [height, width, 3]; it equals the same crop of the whole."""
        return self._renderer.region(scene, region).cpu().numpy()

    def _journal(
        self, out: Path, scene: Scene, seed: int, region: Region | None, regions: RegionMap | None,
        soften: float, vary: float, *, resume: bool,
    ) -> Journal | None:  # fmt: skip
        """The journal of a panorama; None for a model without a file."""
        if self.file is None:
            return None
        picture = pixels_of(self.file, self.patches, self.runtime, scene, seed, region)
        if regions is not None:
            picture |= dict(zip(("map", "legend"), regions.digests(), strict=True)) | {"soften": soften, "vary": vary}
        forms = {choice.layer: choice.form for choice in self.choices} or None
        return Journal(out, picture, resume=resume, forms=forms, adopt=self._in_forms)

    def _in_forms(self, forms: Forms) -> PatchMaker:
        """The maker of patches with other forms of layers."""
        raise ConfigError("an exported file has no other forms")

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

    def laid(
        self, size: tuple[int, int], latents: LatentField, moving: tuple[bool, bool], blend: Blend | None = None
    ) -> Scene:
        """A scene of this width and height, whose latents move along these axes."""
        return self._laid(self._turns(*size), latents, moving, blend)

    def _turns(self, width: int | None, height: int | None) -> tuple[int, int]:
        """Turns (vertically, horizontally) of a picture of this size."""
        own_height, own_width = self.config.size
        return turns(self.config.lattice, self.config.patch, width if width is not None else own_width,
                     height if height is not None else own_height)  # fmt: skip

    def _laid(
        self, counts: tuple[int, int], latents: LatentField, moving: tuple[bool, bool], blend: Blend | None
    ) -> Scene:
        """A scene of so many turns."""
        if blend not in (None, "half-step"):
            raise TaskError(f"panoramas are blended at half steps, 'half-step', or not at all, None, not {blend!r}")
        lattice = self.config.lattice
        rows, columns = counts[0] * lattice.rows, counts[1] * lattice.columns
        inside = None if blend else self.patches.inside
        block = self._block(moving)
        if inside and any(moving) and not self.patches.only:
            down, across = self.config.strip_block
            block = down, min(across, columns)
        scene = Scene(lattice, self.config.patch, rows, columns, latents, moving=moving, block=block, inside=inside)
        stiff = inside.fixed if inside else tuple(n == 1 for n in block)
        if stiff and any(moves and not may for moves, may in zip(moving, stiff, strict=True)):
            raise TaskError(
                f"{self.name} makes blocks of {block[1]}x{block[0]} patches, in which the latent cannot move as this "
                "picture's does; export the graph 'patches', or render with the checkpoint"
            )
        return scene

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
            inside=self.patches.inside if self.patches.only else None,
        )

    def _block(self, moving: tuple[bool, bool]) -> tuple[int, int]:
        """Patches that are made at once: up to 4 x 4 with one latent if the maker makes blocks, else one.

        Margins cost multiplications: for `planet` a single patch takes 2.9 times as many for each patch as without a
        margin, a column of four 2.0 times, and a block of 4 x 4 1.4 times.
        """
        rows, columns = (
            1 if moves else min(axis.patches, 4) for moves, axis in zip(moving, self.config.lattice.axes, strict=True)
        )
        return self.patches.only or (rows, columns)

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
