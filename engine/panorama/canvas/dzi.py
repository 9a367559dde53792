"""Writes Deep Zoom pyramids: libvips cuts them out of a finished TIFF."""

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from zellige.errors import MissingExtraError, OutputError, ResumeError, SizeError

from ...files.atomic import AtomicFile, AtomicFolder, output_errors, partial_of
from . import paths_of
from .canvas import Canvas, Grid, Pixels, Settings
from .tiff import TiffCanvas, tiff_bytes

__all__ = ["DziCanvas"]

# libvips refuses wider pictures.
MOST_WIDTH = 10**8
# libvips keeps some rows of tiles of every level, whatever the height.
_BYTES_A_COLUMN = 8 * 1024
_TILE = 256
_NOTES, _PROPERTIES = "zellige.json", "vips-properties.xml"
_WHOLE = "whole.tif"


class DziCanvas(Canvas):
    """A Deep Zoom pyramid: the file NAME.dzi, and the folder NAME_files with tiles of 256 pixels that do not overlap.

    With an overlap OpenSeadragon would show a gap where a cyclic picture closes. The whole pyramid is made in a new
    folder, because libvips keeps the tiles and levels of an older one. The folder takes its name first, then the file.

    Raises:
        SizeError: the picture is wider than libvips reads.
        MissingExtraError: pyvips or tifffile is not installed.
        OutputError: the paths cannot be written, or the folder was not written by a canvas.
    """

    def __init__(self, path: Path, grid: Grid, settings: Settings) -> None:
        try:
            import pyvips  # noqa: F401 - imported here so that a missing package shows before the rendering
        except (ImportError, OSError) as error:  # OSError: pyvips is there and libvips is not
            raise MissingExtraError("pyvips", "writing Deep Zoom", "dzi") from error
        if max(grid.width, grid.height) > MOST_WIDTH:
            raise SizeError(
                f"{grid.width}x{grid.height} is too large for {path.name}: libvips reads at most {MOST_WIDTH} pixels a "
                f"side. Write {path.with_suffix('.zarr').name} instead, which has levels too."
            )
        self._pyramid = _Pyramid(path)
        super().__init__(self._pyramid, grid, settings, tiff_bytes(grid) + grid.width * _BYTES_A_COLUMN)
        self.partial = partial_of(paths_of(path)[1])

    def _begin(self) -> None:
        whole = self._pyramid.open(**self._how) / _WHOLE
        if self._how["resume"] and whole.is_file():  # an earlier run had all tiles, and was at the pyramid
            self._tiff, self.done = None, self._grid.tiles
            return
        self._tiff = TiffCanvas(whole, self._grid, Settings())
        if self._journal is not None:
            self._tiff.follow(self._journal)
        with self._named():
            self._tiff.__enter__()

    def _take(self, tile: Pixels, top: int, left: int) -> None:
        assert self._tiff is not None, "all tiles were there"
        with self._named():
            self._tiff.write(tile)

    def _finish(self) -> None:
        import pyvips

        if self._tiff is not None:
            with self._named():
                self._tiff.close()
            self.seconds.add(self._tiff.seconds.encode, self._tiff.seconds.write)
        began, work = time.perf_counter(), self._pyramid.work
        jpeg = f".jpg[Q={self._settings.quality},subsample_mode=off]"  # libvips would halve the colours below 90
        suffix = jpeg if self._settings.compression == "jpeg" else ".png"
        # libvips takes tiles that it cannot read for black unless it fails on warnings.
        options = {"access": "sequential", "revalidate": True, "fail_on": "warning"}
        try:
            picture = pyvips.Image.new_from_file(str(work / _WHOLE), **options)
            # On a thread of its own, because a call into libvips does not hear Ctrl-C.
            with ThreadPoolExecutor(1, "zellige-encode") as pool:
                try:
                    pool.submit(picture.dzsave, str(work / "made"), overlap=0, tile_size=_TILE, suffix=suffix).result()
                except BaseException:
                    picture.set_kill(True)
                    raise
        except pyvips.Error as error:
            reason = " ".join(str(error.detail or error).split())
            raise OutputError(f"{self._output.path} cannot be written: {reason}.") from error
        with output_errors(self._output.path):
            notes = work / "made_files" / _NOTES
            notes.write_text(json.dumps({"zellige": dict(self._settings.metadata)}), encoding="ascii")
            (work / "made_files" / _PROPERTIES).unlink(missing_ok=True)  # has the date, and a picture repeats its bytes
        self.seconds.add(encode=time.perf_counter() - began)  # libvips compresses and writes on threads of its own

    def _abandon(self) -> None:
        if self._tiff is not None:
            self._tiff.discard()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let errors name the pyramid and not the TIFF, of which the caller does not know."""
        try:
            yield
        except (OutputError, ResumeError) as error:
            inner, own = str(self._pyramid.work / _WHOLE), str(self._output.path)
            raise type(error)(str(error).replace(inner, own)) from error


class _Pyramid:
    """The file and the folder of a pyramid, of which the folder takes its name first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = AtomicFile(path)
        self._folder = AtomicFolder(paths_of(path)[1], is_canvas)
        self._folder.check()

    def open(self, *, fixed: bool = False, resume: bool = False) -> Path:
        self.work = self._folder.open(fixed=fixed, resume=resume)
        for made in self.work.glob("made*"):  # by libvips, whose process was killed
            shutil.rmtree(made) if made.is_dir() else made.unlink()
        return self.work

    def commit(self) -> None:
        with output_errors(self.path):
            self._file.open().write((self.work / "made.dzi").read_bytes())
        self._folder.commit("made_files")
        self._file.commit()

    def discard(self) -> None:
        self._folder.discard()
        self._file.discard()

    def release(self) -> None:
        self._folder.release()
        self._file.discard()  # it is a copy


def is_canvas(folder: Path) -> bool:
    """Whether a folder holds the tiles of a pyramid that this class wrote, and nothing else."""
    try:
        written = json.loads((folder / _NOTES).read_bytes())["zellige"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    others = {_NOTES, _PROPERTIES}
    return isinstance(written, dict) and all(
        entry.name in others or entry.name.isdecimal() for entry in folder.iterdir()
    )
