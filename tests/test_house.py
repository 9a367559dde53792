"""Who may import whom, read off every file: arrows point down, and systems do not know each other."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "cli", "engine", "export", "kernels", "serve", "training", "zellige")
# From the ground up; modules of one line may import each other.
FLOORS = (
    ("zellige.errors", "zellige.version"),
    ("zellige.kernels",),
    ("zellige.engine.device", "zellige.engine.files", "zellige.engine.layers"),
    ("zellige.engine.checkpoint", "zellige.engine.onnx", "zellige.engine.rewrite", "zellige.engine.panorama"),
    ("zellige.engine.tensorrt",),
    ("zellige.engine.runtimes",),
    ("zellige.engine.systems",),
    ("zellige.engine.exported", "zellige.engine.library", "zellige.engine.info"),
    ("zellige.training", "zellige.export", "zellige.serve"),
    ("zellige.benchmarks",),
    ("zellige.cli",),
)
APART = ("zellige.training", "zellige.export", "zellige.serve")  # of one floor, and strangers
WITHOUT_TORCH = ("zellige.engine.onnx", "zellige.engine.tensorrt")
NEIGHBOURS = {("rearranger", "stylegan2")}  # systems of which the first may import the second


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "zellige" else ("zellige", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports, wherever in it."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield node.lineno, inner if inner in FILES else source


ARROWS = [(module, line, target) for module in FILES for line, target in imports(module)]
OURS = [arrow for arrow in ARROWS if arrow[2].split(".")[0] == "zellige"]


def inside(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


def floor_of(module: str) -> int | None:
    """Number of the floor; None for folders that only hold others, such as zellige.engine."""
    return next((n for n, folders in enumerate(FLOORS) if any(inside(module, folder) for folder in folders)), None)


def shown(arrows: list[tuple[str, int, str]]) -> str:
    return "\n".join(f"{FILES[module].relative_to(ROOT)}:{line} imports {target}" for module, line, target in arrows)


def test_every_file_has_a_floor() -> None:
    assert len(FILES) > 200
    empty = ("zellige", "zellige.engine")
    assert [module for module in FILES if floor_of(module) is None and module not in empty] == []


def test_no_import_points_up() -> None:
    up = []
    for module, line, target in OURS:
        here, there = floor_of(module), floor_of(target)
        if here is not None and there is not None and there > here:
            up.append((module, line, target))
    assert not up, shown(up)


def test_training_export_and_service_are_strangers() -> None:
    met = [
        (module, line, target)
        for module, line, target in OURS
        for here in APART
        for there in APART
        if here != there and inside(module, here) and inside(target, there)
    ]
    assert not met, shown(met)


def test_no_folder_imports_the_face() -> None:
    face = [arrow for arrow in OURS if arrow[2] == "zellige"]
    assert not face, shown(face)


def test_nothing_imports_the_command() -> None:
    roof = [arrow for arrow in OURS if inside(arrow[2], "zellige.cli") and not inside(arrow[0], "zellige.cli")]
    assert not roof, shown(roof)


@pytest.mark.parametrize("house", ["zellige.engine.systems", "zellige.training.systems"])
def test_a_system_imports_no_other(house: str) -> None:
    def system(module: str) -> str | None:
        rest = module.removeprefix("zellige.engine.systems.").removeprefix("zellige.training.systems.")
        name = rest.split(".")[0]
        return name if rest != module and (FILES[module].parent.name == name or "." in rest) else None

    met = []
    for module, line, target in OURS:
        here = system(module) if inside(module, house) else None
        there = system(target) if target in FILES else None
        if here and there and here != there and (here, there) not in NEIGHBOURS:
            met.append((module, line, target))
    assert not met, shown(met)


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_files_for_machines_without_torch_import_none(folder: str) -> None:
    torch = [arrow for arrow in ARROWS if inside(arrow[0], folder) and arrow[2].split(".")[0] == "torch"]
    assert not torch, shown(torch)


def test_help_imports_no_torch() -> None:
    code = "import sys, zellige.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_system_is_named_outside_of_its_folders() -> None:
    """Names of systems, classes and folders, in code and strings; comments and docstrings may give examples."""
    systems = [path.name for path in (ROOT / "engine" / "systems").iterdir() if (path / "config.py").is_file()]
    names = [name for system in systems for name in {system, system.replace("_", "-"), system.replace("_", "")}]
    word = re.compile(rf"(?<![a-z])({'|'.join(names)})(?![a-z])", re.IGNORECASE)
    table = ROOT / "engine" / "systems" / "__init__.py"
    found = []
    for path in FILES.values():
        if path.parent.name in systems or path == table or path.is_relative_to(ROOT / "kernels"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
                text = node.value
            elif isinstance(node, ast.Name | ast.Attribute | ast.alias):
                text = (
                    node.attr
                    if isinstance(node, ast.Attribute)
                    else node.id
                    if isinstance(node, ast.Name)
                    else node.name
                )
            elif isinstance(node, ast.ImportFrom):
                text = node.module or ""
            if word.search(text):
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {text[:60]}")
    assert not found, "\n".join(found)
