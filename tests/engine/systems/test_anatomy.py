"""Every row of the table has the anatomy, and a system that is added has all that others have without another file."""

import csv
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import BaseModel
from torch import nn

from zellige.engine.checkpoint.faults import AllocationError
from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.checkpoint.foreign.content import Content
from zellige.engine.library import load
from zellige.engine.systems import SYSTEMS, all_systems, system_of
from zellige.engine.systems.graph import OUTPUTS
from zellige.engine.systems.system import Options, System
from zellige.errors import TaskError, UnknownModelError

from .tiny.model import Config, Networks

ROOT = Path(__file__).parents[3]
every_system = pytest.mark.parametrize("system", all_systems(), ids=SYSTEMS)


@every_system
class TestAnatomy:
    def test_the_declaration_is_short_and_light(self, system: System) -> None:
        path = ROOT / "engine" / "systems" / system.folder / "__init__.py"
        assert len(path.read_text().splitlines()) <= 60
        code = f"import sys; from zellige.engine.systems import system_of; system_of({system.name!r}); "
        code += "sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_every_task_is_a_method_with_its_inputs_and_options(self, system: System) -> None:
        import inspect

        classes = [c for c in vars(system.part("model")).values() if inspect.isclass(c) and hasattr(c, "system")]
        (model,) = (c for c in classes if c.__module__ == system.part("model").__name__ and c.system == system.name)
        for task in system.tasks:
            taken = inspect.signature(getattr(model, task.name)).parameters
            asked = [source.name for source in task.reads] + list(task.options.model_fields)
            assert [name for name in asked if name not in taken] == []
            assert issubclass(task.options, Options) and task.help.endswith(".")
            assert sum(source.many for source in task.reads) <= 1
            assert bool(task.reads) == (bool(task.makes) or task.table)
            for name, field in task.options.model_fields.items():
                assert field.description, f"{task.name} --{name} has no description"

    def test_a_loaded_model_is_asked_the_same(self, system: System) -> None:
        part = system.part("model")
        for name in ("open_model", "open_graph", "build", "example", "PREFIX", "RUNS"):
            assert hasattr(part, name)
        assert set(part.RUNS) <= set(system.graphs)

    def test_graphs_are_those_declared_and_their_examples_fit(self, system: System) -> None:
        graphs, config_of = system.part("graphs").GRAPHS, system.part("config").Config
        assert tuple(graphs) == system.graphs and system.measured in graphs
        for graph in graphs.values():
            for chosen in ({}, *system.references.values()):  # a graph may need another network than the paper's
                config = config_of(**chosen)
                with suppress(TaskError):
                    assert graph.outputs and all(callable(graph.compute(config, output)) for output in OUTPUTS)
                    break
            else:
                pytest.fail("no network has this graph")
            assert {len(rows) for rows in graph.example(config, 2).values()} == {2}

    def test_the_configuration_is_frozen_and_says_the_size(self, system: System) -> None:
        config = system.part("config").Config
        assert issubclass(config, BaseModel) and config.model_config["frozen"]
        assert len(config().size) == 2
        for name, field in config.model_fields.items():
            assert field.description, f"{name} has no description"

    def test_networks_on_the_meta_device_allocate_nothing(self, system: System) -> None:
        config = system.part("config").Config()
        with torch.device("meta"):
            system.part("model").build(config)  # imports and caches
            tracemalloc.start()
            networks = system.part("model").build(config)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert {t.device.type for t in (*networks.parameters(), *networks.buffers())} == {"meta"}
        assert peak < 4 * 2**20  # objects; the weights would take hundreds of megabytes

    def test_a_file_without_its_weights_is_refused_before_networks_are_built(
        self, system: System, tmp_path: Path
    ) -> None:
        path = tmp_path / "hollow.safetensors"
        write_checkpoint(path, {"x": torch.zeros(1)}, system=system.name, config={})
        with pytest.raises(AllocationError, match=r"its config describes \d+ weights and the file holds 1;"):
            load(path, "cpu")

    def test_references_have_configurations(self, system: System) -> None:
        for chosen in system.references.values():
            assert system.part("config").Config(**chosen)

    def test_training_has_its_files(self, system: System) -> None:
        parts = {name: import_module(f"zellige.training.systems.{system.folder}.{name}")
                 for name in ("recipe", "training", "recipes", "evaluate")}  # fmt: skip
        assert parts["recipes"].RECIPES and callable(parts["evaluate"].evaluate)
        assert all(recipe.system == system.name for recipe in parts["recipes"].RECIPES.values())

    def test_a_converter_says_whose_weights_it_knows(self, system: System) -> None:
        if not system.has("convert"):
            pytest.skip("it has no converter")
        part = system.part("convert")
        assert part.LAYOUTS and all(isinstance(name, str) for name in part.LAYOUTS)
        assert part.convert(Content(Path("x.pt"), "pickle", "", {"x": torch.zeros(1)}, {}), 0, 1) is None

    def test_every_task_is_on_its_page(self, system: System) -> None:
        page = (ROOT / "docs" / "systems" / f"{system.folder}.md").read_text()
        names = dict.fromkeys([*(task.name for task in system.tasks), *system.graphs])
        forms = ("`{}`", "zellige {} ", ".{}(", "--task {}")
        missing = [name for name in names if not any(form.format(name) in page for form in forms)]
        assert missing == []


def test_the_table_is_of_the_folders() -> None:
    folders = sorted(path.parent.name for path in (ROOT / "engine" / "systems").glob("*/__init__.py"))
    assert sorted(system.folder for system in all_systems()) == folders
    assert [system.name for system in all_systems()] == list(SYSTEMS)
    with pytest.raises(UnknownModelError, match="cannot run sculptor models; it runs " + ", ".join(SYSTEMS)):
        system_of("sculptor")
    with pytest.raises(TaskError, match="OneGAN has no task 'fly'; its tasks are generate, reconstruct"):
        system_of("onegan").task("fly")


# What adding a system is: its folder where the others are, and its row.
ADDED = """
import sys
import zellige.engine.systems as table
table.__path__.append({folder!r})
table.SYSTEMS = (*table.SYSTEMS, "tiny")
from zellige.cli import main
sys.argv = ["zellige", *sys.argv[1:]]
main()
"""


class TestAdded:
    """A system that this test adds has its verbs, its help, its export and its benchmark."""

    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        torch.manual_seed(0)
        config = Config()
        networks = Networks(config)
        for weight in networks.parameters():
            nn.init.normal_(weight, std=0.3)
        path = tmp_path_factory.mktemp("tiny") / "dots.safetensors"
        write_checkpoint(path, networks.state_dict(), system="tiny", config=config.model_dump(mode="json"))
        return path

    @pytest.fixture
    def zellige(self, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
        def run(*words: Any) -> subprocess.CompletedProcess[str]:
            code = ADDED.format(folder=str(Path(__file__).parent))
            command = [sys.executable, "-c", code, *map(str, words)]
            environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
            return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)

        return run

    @pytest.fixture
    def picture(self, tmp_path: Path) -> Path:
        path = tmp_path / "photo.png"
        Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(path)
        return path

    def test_its_verbs_are_in_the_help(self, zellige: Any) -> None:
        said = zellige("--help").stdout
        for verb in ("invert", "reframe", "weigh"):
            assert f" {verb} " in said
        assert "Tiny" in said
        flags = zellige("invert", "--help").stdout
        assert "--strength" in flags and "Share of the way to the inverse." in flags
        assert "--frame" in zellige("reframe", "--help").stdout

    def test_its_verbs_work(self, zellige: Any, model: Path, picture: Path, tmp_path: Path) -> None:
        made = zellige("invert", model, picture, "--strength", "1", "--out", "out", "--json")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["files"] == ["out/photo-inverse.png", "out/photo-grey.png"]
        given = np.asarray(Image.open(picture)).astype(int)
        assert (np.asarray(Image.open(tmp_path / "out/photo-inverse.png")) == 255 - given).all()

    def test_a_flag_that_another_source_is_read_from(
        self, zellige: Any, model: Path, picture: Path, tmp_path: Path
    ) -> None:
        made = zellige("reframe", model, picture, "--frame", picture, "--out", "out")
        assert made.returncode == 0, made.stderr
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo-in-photo.png"]

    def test_files_that_make_one_image_together(self, zellige: Any, model: Path, picture: Path, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "black.png")
        made = zellige("mix", model, picture, "black.png", picture, "--out", "out")  # one file twice
        assert made.returncode == 0, made.stderr
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo-mixed.png"]
        assert "for the first file STEM" in " ".join(zellige("mix", "--help").stdout.split())

    def test_its_table_is_written(self, zellige: Any, model: Path, picture: Path, tmp_path: Path) -> None:
        assert zellige("weigh", model, picture, "--out", "levels.csv").returncode == 0
        with (tmp_path / "levels.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert row.keys() == {"file", "level"}
        assert float(row["level"]) == pytest.approx(np.asarray(Image.open(picture)).mean(), abs=1e-3)

    def test_bad_values_and_other_models_are_a_sentence(self, zellige: Any, model: Path, picture: Path) -> None:
        far = zellige("invert", model, picture, "--strength", "2", "--out", "out")
        assert far.returncode == 2 and "strength" in far.stderr and "Traceback" not in far.stderr
        other = zellige("invert", "planet", picture, "--out", "out")
        assert other.returncode == 2 and "invert needs a tiny model" in other.stderr

    def test_it_is_exported_and_measured(self, zellige: Any, model: Path, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        made = zellige("export", model, "--to", "onnx", "--task", "invert", "--out", "invert.onnx", "--json")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["inputs"] == [{"name": "images", "dtype": "uint8", "shape": ["N", 16, 16, 3]}]
        words = ("--batch", "2", "--precision", "fp32", "--against", "eager", "--rounds", "1", "--device", "cpu")
        measured = zellige("bench", "generate", "tiny-8", *words, "--json")
        assert measured.returncode == 0, measured.stderr
        report = json.loads(measured.stdout)
        assert report["system"] == "tiny"
        assert {row["runner"] for row in report["results"] if row["reason"] is None} == {"zellige", "eager"}
