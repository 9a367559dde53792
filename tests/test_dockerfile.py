"""The Dockerfile is read, instruction by instruction, because no image can be built where these tests run."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from zellige.cli import make_app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    lines = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    logical = lines.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in logical) if word]


def of(kind: str) -> list[str]:
    return [rest for word, rest in instructions() if word == kind]


def installs() -> list[list[str]]:
    """The arguments of each `pip install`."""
    runs = [shlex.split(rest) for rest in of("RUN")]
    return [words[2:] for words in runs if words[:2] == ["pip", "install"]]


def copied() -> list[str]:
    """Names in the checkout that are copied into the image."""
    return [source for rest in of("COPY") if not rest.startswith("--from") for source in rest.split()[:-1]]


def default(argument: str) -> str:
    (value,) = (rest.partition("=")[2] for rest in of("ARG") if rest.startswith(f"{argument}="))
    return value


def parsed(arguments: list[str]) -> Any:
    """Refuses verbs and options that the command does not have."""
    command: Any = typer.main.get_command(make_app())
    while hasattr(command, "commands"):
        assert arguments[0] in command.commands, arguments[0]
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command.make_context("zellige", arguments)


def test_every_line_is_an_instruction() -> None:
    known = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR"}
    assert {word for word, _ in instructions()} <= known and instructions()[0][0] == "FROM"


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied() and all((ROOT / source).exists() for source in copied())
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())
    assert "*" in lines and not set(lines) & set(copied())


def test_every_source_of_the_package_is_copied() -> None:
    project = PROJECT["project"]
    packages = PROJECT["tool"]["scikit-build"]["wheel"]["packages"].values()
    assert {*packages, "CMakeLists.txt", "pyproject.toml", project["readme"], *project["license-files"]} <= set(
        copied()
    )


def test_a_folder_is_copied_under_its_own_name() -> None:
    """COPY of a folder copies what is in it."""
    for rest in of("COPY"):
        *sources, target = rest.split()
        if not rest.startswith("--from") and any((ROOT / source).is_dir() for source in sources):
            assert len(sources) == 1 and target == f"./{sources[0]}"


def test_everything_is_installed_through_the_constraints() -> None:
    assert len(installs()) == 3
    assert all(words[:2] == ["--constraint", "constraints.txt"] for words in installs())


def test_torch_comes_first_and_alone() -> None:
    first = installs()[0]
    assert first[-1] == "torch" and "--no-deps" in first and default("TORCH_INDEX") == ""


def test_build_tools_are_there_before_a_build_without_isolation() -> None:
    *_, tools, package = installs()
    assert "--no-build-isolation" in package
    assert {Requirement(need).name for need in PROJECT["build-system"]["requires"]} | {"cmake", "ninja"} <= set(tools)


@pytest.mark.parametrize("extras", [default("EXTRAS"), *re.findall(r"EXTRAS=([\w,-]+)", TEXT)])
def test_the_extras_exist(extras: str) -> None:
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    assert installs()[-1][-1] == ".[$EXTRAS]"


def test_the_base_has_a_python_that_the_package_takes_in_both_stages() -> None:
    images = {rest.split()[0] for rest in of("FROM")}
    (version,) = (re.fullmatch(r"python:(\d+\.\d+)-slim", image) for image in images)
    assert version and SpecifierSet(PROJECT["project"]["requires-python"]).contains(version[1])


def test_it_does_not_run_as_root() -> None:
    words = [word for word, _ in instructions()]
    assert of("USER") == ["zellige"] and words.index("USER") < words.index("ENTRYPOINT")
    assert any(re.search(r"useradd .*--uid 10001 zellige", rest) for rest in of("RUN"))
    assert "RUN" not in words[words.index("USER") :]


def test_a_port_is_open_only_if_a_verb_listens() -> None:
    command: Any = typer.main.get_command(make_app())
    assert bool(of("EXPOSE")) == ("serve" in command.commands)


def test_it_starts_the_command_and_a_verb_that_exists() -> None:
    (entry,), (verb,), (health,) = of("ENTRYPOINT"), of("CMD"), of("HEALTHCHECK")
    assert json.loads(entry)[0] in PROJECT["project"]["scripts"]
    parsed(json.loads(verb))
    command = json.loads(health.partition("CMD ")[2])
    assert command[0] in PROJECT["project"]["scripts"]
    parsed(command[1:])


USAGE = re.findall(r"^#   docker run .*? zellige\b(.*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("arguments", USAGE)
def test_the_usage_it_shows_is_of_verbs_and_options_that_exist(arguments: str) -> None:
    assert len(USAGE) == 3
    words = shlex.split(arguments) or json.loads(of("CMD")[0])
    context = parsed(words)
    if "out" in context.params:
        assert str(context.params["out"]).startswith("/work/")
