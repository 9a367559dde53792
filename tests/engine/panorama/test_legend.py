import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zellige.engine.panorama.latents import fixed_latent
from zellige.engine.panorama.legend import hexadecimal, read_legend
from zellige.errors import MapError

LENGTH = 6
Legend = Callable[..., Path]


@pytest.fixture
def legend(tmp_path: Path) -> Legend:
    """A legend's path by its text; arrays lie beside it under their names."""

    def write(text: str | bytes, **arrays: object) -> Path:
        for name, array in arrays.items():
            content = array if isinstance(array, bytes) else saved(array)
            (tmp_path / f"{name}.npy").write_bytes(content)
        path = tmp_path / "map.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def saved(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def test_a_colour_names_an_image_of_a_seed_or_a_file(legend: Legend) -> None:
    desert = np.linspace(-1, 1, LENGTH)
    path = legend(
        '["#2060c0"]\nseed = 7\n["#D0C060"]\nlatent = "desert.npy"\n["#ffffff"]\nseed = 0\nimage = 5\n', desert=desert
    )
    sea, sand, ice = read_legend(path, LENGTH)
    assert (sea.colour, sand.colour, ice.colour) == ((0x20, 0x60, 0xC0), (0xD0, 0xC0, 0x60), (255, 255, 255))
    assert (sea.source, sand.source, ice.source) == ("seed 7", "desert.npy", "seed 0, image 5")
    assert (sea.latent == fixed_latent(7, 0, LENGTH)).all()
    assert (sand.latent == desert).all()
    assert (ice.latent == fixed_latent(0, 5, LENGTH)).all()
    assert hexadecimal(sand.colour) == "#d0c060"


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "i1"])
@pytest.mark.parametrize("shape", [(LENGTH,), (1, LENGTH)])
def test_a_latent_has_any_type_of_numbers(legend: Legend, dtype: str, shape: tuple[int, ...]) -> None:
    ends = np.array([-1, 1, 0, 1, 0, -1], dtype).reshape(shape)
    (entry,) = read_legend(legend('["#000000"]\nlatent = "a.npy"', a=ends), LENGTH)
    assert (entry.latent == ends.ravel()).all() and entry.latent.dtype == np.float64


A, SEED = '["#000000"]\n', '["#000000"]\nseed = 1\n'
FILE = A + 'latent = "a.npy"'
REFUSED = {
    "an image": (b"\x89PNG\xff", {}, "is no TOML ("),
    "half a table": ('["#000000"', {}, "is no TOML ("),
    "deep nesting": ("a = " + "[" * 100_000, {}, "is no TOML ("),
    "a number of many digits": ("a = " + "9" * 5000, {}, "is no TOML ("),
    "a table twice": (SEED + SEED, {}, "is no TOML (Cannot declare ('#000000',) twice"),
    "much text": ("#" * (2**20 + 1), {}, "more than 1048576 bytes"),
    "nothing": ("# no colours yet\n", {}, 'has no colours; write for example ["#2060c0"] and below it seed = 7'),
    "65 colours": ("".join(f'["#0000{k:02x}"]\nseed = {k}\n' for k in range(65)), {}, "65 colours, and at most 64"),
    "a name": ("[sea]\nseed = 7", {}, "has 'sea', which is no colour"),
    "a short colour": ('["#fff"]\nseed = 7', {}, "has '#fff', which is no colour"),
    "no table": ('"#2060c0" = 7', {}, "has '#2060c0', which is a colour without a table"),
    "a colour twice": ('["#AA0000"]\nseed = 1\n["#aa0000"]\nseed = 2', {}, "has the colour #aa0000 twice; leave one"),
    "an unknown key": (SEED + "sead = 2", {}, "has the unknown key 'sead'; there are seed, image, latent"),
    "no latent": (A, {}, 'must name one latent, with seed = 7 or with latent = "desert.npy"'),
    "two latents": (FILE + "\nseed = 3", {}, "must name one latent"),
    "an image alone": (A + "image = 3", {}, "must name one latent"),
    "an image of a file": (FILE + "\nimage = 3", {}, "has the key 'image', which goes with seed only"),
    "a negative seed": (A + "seed = -1", {}, "has seed = -1; it must be a whole number from 0 to"),
    "a true seed": (A + "seed = true", {}, "has seed = True; it must be"),
    "a text as seed": (A + 'seed = "7"', {}, "has seed = '7'; it must be"),
    "a huge image": (SEED + f"image = {2**63}", {}, "has image = 9223372036854775808; it must be"),
    "a number as file": (A + "latent = 3", {}, "has latent = 3; give the name of a file"),
    "no file": (FILE, {}, "there is no file"),
    "a folder": (A + 'latent = "."', {}, "it is a folder"),
    "another length": (FILE, {"a": np.zeros(7)}, "must hold one vector of 6 numbers, and holds [7] of type float64"),
    "a matrix": (FILE, {"a": np.zeros((2, 3))}, "must hold one vector of 6 numbers, and holds [2, 3]"),
    "a number": (FILE, {"a": 0.5}, "must hold one vector of 6 numbers, and holds []"),
    "complex numbers": (FILE, {"a": np.zeros(6, complex)}, "[6] of type complex128"),
    "objects": (FILE, {"a": np.array([None] * 6)}, "[6] of type object"),
    "beyond 1": (FILE, {"a": np.full(6, 1.5)}, "must be within [-1, 1], as in training; they reach 1.5"),
    "not finite": (FILE, {"a": np.full(6, np.nan)}, "they are not all finite"),
    "no array": (FILE, {"a": b"PK\x03\x04"}, "is no .npy file; write the latent with numpy.save"),
    "a cut array": (FILE, {"a": saved(np.zeros(6))[:-3]}, "is damaged: it holds 45 bytes for 6 numbers"),
    "a cut header": (FILE, {"a": saved(np.zeros(6))[:40]}, "is no .npy file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_another_legend_is_refused_in_a_sentence(legend: Legend, case: str) -> None:
    text, arrays, sentence = REFUSED[case]
    with pytest.raises(MapError) as caught:
        read_legend(legend(text, **arrays), LENGTH)
    assert sentence in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_legend_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"^the legend cannot be read: there is no file .*gone\.toml$"):
        read_legend(tmp_path / "gone.toml", LENGTH)
    with pytest.raises(MapError, match=r"^the legend cannot be read from .*: it is a folder"):
        read_legend(tmp_path, LENGTH)
