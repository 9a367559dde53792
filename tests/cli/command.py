"""What the tests of all verbs share: how a command is run, and how its answer is read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Run = Callable[..., tuple[int, str, str]]
CPU = ("--device", "cpu", "--precision", "fp32")
TILES, BIRDS = "./cylinder.safetensors", "./birds.safetensors"


def contents(folder: Path) -> Iterator[tuple[str, bytes | None]]:
    for path in sorted(folder.rglob("*")):
        yield str(path), path.read_bytes() if path.is_file() else None


def refused(run: Run, arguments: tuple[object, ...], part: str) -> None:
    """A sentence with this part, exit status 2, and nothing in the working folder has changed."""
    before = list(contents(Path.cwd()))
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("zellige: ") and err.count("\n") == 1 and part in err, err
    assert "Traceback" not in err
    assert list(contents(Path.cwd())) == before


def one_object(output: tuple[int, str, str]) -> dict[str, Any]:
    status, out, err = output  # warnings go to standard error
    assert status == 0 and out.count("\n") == 1, err
    report = json.loads(out)
    assert isinstance(report, dict)
    return report


def panorama(*arguments: object, model: str = TILES, out: str = "out.tif") -> tuple[object, ...]:
    return "panorama", model, "--out", out, *arguments


def generate(*arguments: object, model: str = TILES, out: str = "images") -> tuple[object, ...]:
    return "generate", model, "--out", out, *arguments
