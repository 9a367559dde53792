"""The legend of a map: a TOML file that says which latent a colour means."""

import io
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zellige.errors import MapError

from ..files.hostile import IrregularFileError, open_regular, shown
from .latents import fixed_latent

__all__ = ["MOST_COLOURS", "Entry", "hexadecimal", "read_latent", "read_legend"]

Colour = tuple[int, int, int]

MOST_COLOURS = 64
_MOST_BYTES = 2**20  # of a legend, and of a file of a latent
_MOST_SEED = 2**63 - 1
_COLOUR = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_KEYS = ("seed", "image", "latent")
_EXAMPLE = '["#2060c0"] and below it seed = 7'


@dataclass(frozen=True)
class Entry:
    """A colour of a map.

    Attributes:
        colour: red, green and blue, 0 to 255.
        latent: what the colour means, float64 [length] in [-1, 1].
        source: where the latent comes from, such as "seed 7" or "desert.npy".
    """

    colour: Colour
    latent: npt.NDArray[np.float64]
    source: str


def hexadecimal(colour: Colour) -> str:
    """Write a colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def read_legend(path: Path, length: int) -> tuple[Entry, ...]:
    """Read a legend: a TOML file with a table for each colour, which names one latent.

    A table is called "#rrggbb". It holds `seed`, and perhaps `image`, for image number `image` of a seed as `generate`
    makes it; or `latent`, the name of a .npy file beside the legend with one vector.

    Args:
        path: the legend.
        length: the length of the model's latents.
    Returns:
        1 to `MOST_COLOURS` entries in the order of the file.
    Raises:
        MapError: the legend, or a file that it names, cannot be read or does not say one latent for each colour.
    """
    try:
        document = tomllib.loads(_content(path, "the legend").decode())
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of numbers with thousands of digits
        reason = " ".join(str(error).split())
        raise MapError(f"the legend {path} is no TOML ({reason}); write for example {_EXAMPLE}") from None
    if not document:
        raise MapError(f"the legend {path} has no colours; write for example {_EXAMPLE}")
    if len(document) > MOST_COLOURS:
        raise MapError(f"the legend {path} has {len(document)} colours, and at most {MOST_COLOURS} are read")
    entries: dict[Colour, Entry] = {}
    for name, table in document.items():
        found = _COLOUR.fullmatch(name)
        if found is None or not isinstance(table, dict):
            kind = "no colour" if found is None else "a colour without a table"
            raise MapError(f"the legend {path} has {shown(name)}, which is {kind}; write for example {_EXAMPLE}")
        colour = int(found[1], 16), int(found[2], 16), int(found[3], 16)
        if colour in entries:
            raise MapError(f"the legend {path} has the colour {hexadecimal(colour)} twice; leave one out")
        entries[colour] = Entry(colour, *_latent(table, f"the colour {name} of {path}", path.parent, length))
    return tuple(entries.values())


def _latent(table: dict[str, Any], where: str, folder: Path, length: int) -> tuple[npt.NDArray[np.float64], str]:
    for key in table:
        if key not in _KEYS:
            raise MapError(f"{where} has the unknown key {shown(key)}; there are {', '.join(_KEYS)}")
    if ("seed" in table) == ("latent" in table):
        raise MapError(f'{where} must name one latent, with seed = 7 or with latent = "desert.npy"')
    if "latent" in table:
        if "image" in table:
            raise MapError(f"{where} has the key 'image', which goes with seed only; leave it out")
        name = table["latent"]
        if not isinstance(name, str) or not name:
            raise MapError(f'{where} has latent = {shown(name)}; give the name of a file, such as "desert.npy"')
        return read_latent(folder / name, where, length), name
    for key in ("seed", "image"):
        number = table.get(key, 0)
        if type(number) is not int or not 0 <= number <= _MOST_SEED:
            raise MapError(f"{where} has {key} = {shown(number)}; it must be a whole number from 0 to {_MOST_SEED}")
    seed, image = table["seed"], table.get("image", 0)
    return fixed_latent(seed, image, length), f"seed {seed}" + (f", image {image}" if image else "")


def read_latent(path: Path, where: str, length: int) -> npt.NDArray[np.float64]:
    """Read one vector of a .npy file; pickled objects in it are never opened.

    Args:
        path: the file.
        where: what the latent is of, for errors.
        length: the length that it must have.
    Returns:
        float64 [length] in [-1, 1].
    Raises:
        MapError: the file cannot be read, or holds something else.
    """
    content = io.BytesIO(_content(path, f"the latent of {where}"))
    try:
        version = np.lib.format.read_magic(content)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(content)
    except Exception:  # numpy parses the header as Python, with as many classes of errors
        raise MapError(f"{path} is no .npy file; write the latent with numpy.save") from None
    if math.prod(shape) != length or max(shape, default=0) != length or dtype.kind not in "fiu":
        raise MapError(f"{path} must hold one vector of {length} numbers, and holds {list(shape)} of type {dtype}")
    numbers = content.read()
    if len(numbers) != length * dtype.itemsize:
        raise MapError(f"{path} is damaged: it holds {len(numbers)} bytes for {length} numbers of type {dtype}")
    latent = np.frombuffer(numbers, dtype).astype(np.float64)
    furthest = float(np.abs(latent).max())
    if not furthest <= 1:  # true of NaN too
        given = f"reach {furthest:g}" if math.isfinite(furthest) else "are not all finite"
        raise MapError(f"the numbers of {path} must be within [-1, 1], as in training; they {given}")
    return latent


def _content(path: Path, what: str) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except IrregularFileError as error:
        raise MapError(f"{what} cannot be read from {path}: {error.strerror}") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a NUL character
        raise MapError(f"{what} cannot be read: there is no file {path}") from None
    except OSError as error:
        raise MapError(f"{what} cannot be read from {path}: {error.strerror or error}") from None
    if len(content) > _MOST_BYTES:
        raise MapError(f"{what} cannot be read from {path}: it has more than {_MOST_BYTES} bytes")
    return content
