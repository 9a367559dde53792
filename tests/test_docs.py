"""The documents show what exists: their snippets run, their commands parse, their links lead somewhere."""

import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from zellige.cli import make_app
from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.critic import Discriminator, Head
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.engine.systems.key_patch.config import KeyPatchConfig
from zellige.engine.systems.key_patch.networks import Discriminator as KeyPatchDiscriminator
from zellige.engine.systems.key_patch.networks import KeyPatchNetworks
from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.model import PREFIX
from zellige.engine.systems.onegan.networks import OneGanNetworks
from zellige.engine.systems.rearranger.config import RearrangerConfig
from zellige.engine.systems.rearranger.networks import RearrangerNetworks
from zellige.engine.systems.stylegan2.config import StyleGan2Config
from zellige.engine.systems.stylegan2.generator import Generator as StyleGan2Generator
from zellige.training.systems import RECIPES
from zellige.training.systems.coco_gan.recipe import CocoGanRecipe

ROOT = Path(__file__).parents[1]
PAGES = [
    *(f"docs/systems/{page.name}" for page in sorted((ROOT / "docs/systems").glob("*.md"))),
    "docs/panoramas.md",
    "docs/reliability.md",
    "docs/terapixel.md",
    "docs/training.md",
    "docs/generating.md",
    "docs/kernels.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


SNIPPETS = [(page, k, code) for page in PAGES for k, code in enumerate(blocks(page, "python"))]
COMMANDS = [
    (page, line)
    for page in [*PAGES, "docs/deploying.md"]  # whose snippets test_deploying.py runs
    for block in blocks(page, "sh")
    for line in block.splitlines()
    if line.startswith("zellige ")
]


def write_tiny(path: Path, **changes: Any) -> None:
    """A model with planet's lattice and hardly any weights."""
    small = {"width": 1, "critic_width": 1, "head_width": 4, "latent": 4}
    config = CocoGanConfig.model_validate(RECIPES["planet"].model.model_dump() | small | changes)
    torch.manual_seed(0)
    parts: dict[str, torch.nn.Module] = {"generator": Generator(config, spectral=False)}
    if config.latent_head:
        critic = Discriminator(config, spectral=False)
        head = Head(critic.features, config.latent, config.head_width, spectral=False)
        parts |= {"critic": critic, "latent_head": head}
    tensors = {
        f"{part}.{name}": value
        for part, module in parts.items()
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    }
    write_checkpoint(path, tensors, system="coco-gan", config=config.model_dump(mode="json"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    names = {
        '"planet"': folder / "planet.safetensors",
        '"runs/guided/model.safetensors"': folder / "guided.safetensors",
    }
    for path, guided in zip(names.values(), (False, True), strict=True):
        write_tiny(path, latent_head=guided)
    names['"emoji"'] = birds = folder / "birds.safetensors"
    config = OneGanConfig(resolution=64, width=1, encoder_width=1)
    tensors = {PREFIX + name: tensor for name, tensor in OneGanNetworks(config).state_dict().items()}
    write_checkpoint(birds, tensors, system="onegan", config=config.model_dump(mode="json"))
    names['"runs/keys/model.safetensors"'] = keys = folder / "keys.safetensors"
    small = KeyPatchConfig(resolution=64, width=4, encoding=8)
    parts = {"networks": KeyPatchNetworks(small), "critic": KeyPatchDiscriminator(small)}
    tensors = {
        f"{part}.{name}": value
        for part, network in parts.items()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    write_checkpoint(keys, tensors, system="key-patch", config=small.model_dump(mode="json"))
    wide = StyleGan2Config(channels=(8, 8, 8, 8, 8), z_dim=8, w_dim=8)
    layout = RearrangerConfig(generator=wide, split=32, width=8, key_width=8)
    for name, system, chosen, networks in (
        ("faces", "stylegan2", wide, {"generator": StyleGan2Generator(wide)}),
        ("rearranger", "rearranger", layout, {"networks": RearrangerNetworks(layout)}),
    ):
        names[f'"runs/{name}/model.safetensors"'] = path = folder / f"{name}.safetensors"
        tensors = {
            f"{part}.{inner}": value
            for part, network in networks.items()
            for inner, value in network.state_dict().items()
        }
        write_checkpoint(path, tensors, system=system, config=chosen.model_dump(mode="json"))
    return names


@pytest.mark.parametrize(("page", "number", "code"), SNIPPETS, ids=[f"{page}-{k}" for page, k, _ in SNIPPETS])
def test_snippet_runs_and_has_the_shapes_it_says(page, number, code, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, path in models.items():
        code = code.replace(name, repr(str(path)))
    values: dict[str, Any] = {}
    for statement in re.split(r"\n(?=\S)", code):  # one at a time, as far as blocks go: a name may be bound twice
        exec(compile(statement, page, "exec"), values)
        claim = re.match(r"(\w+) = .*# \[([\d, ]+)\]", statement)
        if claim:
            assert list(values[claim[1]].shape) == [int(side) for side in claim[2].split(",")]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_command_exists_with_its_options(page, line):
    command: Any = typer.main.get_command(make_app())
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no verb {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context("zellige", words)  # refuses what it does not know
    if "recipe" in context.params:
        assert context.params["recipe"] in RECIPES


def inline_commands(page: str) -> list[str]:
    """Commands within sentences and tables; a line may end inside of one."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(found.split()) for found in re.findall(r"`(zellige [a-z][^`]*)`", text)]


@pytest.mark.parametrize("page", ["README.md", *PAGES, "docs/deploying.md"])
def test_command_in_a_sentence_exists_with_its_options(page):
    for line in inline_commands(page):
        command: Any = typer.main.get_command(make_app())
        words = line.split()[1:]
        while hasattr(command, "commands") and words:
            assert words[0] in command.commands, line
            command, words = command.commands[words[0]], words[1:]
        known = {flag for param in command.params for flag in param.opts}
        assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in known] == [], line


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("page", PAGES)
def test_named_file_exists(page):
    for name in re.findall(
        r"`((?:engine|kernels|training|benchmarks|tests|zellige)/[\w/.]+)`", (ROOT / page).read_text()
    ):
        if "NAME" not in name and "SYSTEM" not in name and name != "engine/runtimes/":
            assert (ROOT / name).exists(), name


def test_pages_for_users_name_no_source_file():
    """Moves would break such names; public names of Python and commands stay."""
    for page in ["README.md", "docs/deploying.md", *(page for page in PAGES if page.startswith("docs/"))]:
        text = (ROOT / page).read_text()
        assert not re.findall(r"\b(?:engine|export|training|cli|zellige)/[\w/*]+\.(?:py|cpp|hpp)\b", text), page


def test_modules_that_pages_run_exist():
    for page in ["README.md", *PAGES, "docs/deploying.md"]:
        for name in re.findall(r"python -m\s(zellige[\w.]+)", (ROOT / page).read_text()):
            assert hasattr(pkgutil.resolve_name(name), "__file__"), name


def test_changelog_names_what_exists_now():
    for row in re.findall(r"^\| `zellige\.\S.*\|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE):
        for name in re.findall(r"`(zellige\.[\w.]+)", row.split("|")[2]):
            pkgutil.resolve_name(name)  # raises if there is none


def test_training_page_names_every_recipe():
    pages = [ROOT / "docs/training.md", *(ROOT / "docs/systems").glob("*.md")]
    text = "".join(page.read_text() for page in pages)
    shorthand = {"celeba-128-n8": "`-n8`", "celeba-128-n16": "`-n16`"}
    assert not [name for name in RECIPES if shorthand.get(name, f"`{name}`") not in text]


def test_every_deviation_of_planet_is_in_the_table_of_deviations():
    paper, planet = CocoGanRecipe().model_dump(), RECIPES["planet"].model_dump()
    paper |= {f"model.{name}": value for name, value in paper.pop("model").items()}
    planet |= {f"model.{name}": value for name, value in planet.pop("model").items()}
    sizes = {"data", "description", "model.topology", "model.rows", "model.columns"}
    deviations = {name for name in planet if planet[name] != paper[name]} - sizes
    table = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs/systems/coco_gan.md").read_text(), re.MULTILINE)
    assert deviations <= {name.strip("`") for row in table for name in row.split(", ")}
