import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.cli import main
from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.library import BUNDLED
from zellige.errors import UnknownModelError

ModelFile = Callable[[str], Path]
Run = Callable[..., tuple[int, str, str]]
TINY = (
    "--data", "pictures", "--set", "model.rows=3", "--set", "model.columns=3", "--set", "model.patch=4",
    "--set", "model.width=1", "--set", "model.critic_width=1", "--set", "batch=2", "--workers", "0",
)  # fmt: skip


class Touch:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("hit"),)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: ModelFile) -> Path:
    """The working folder of a user: a model, and all kinds of files that are none."""
    monkeypatch.chdir(tmp_path)
    content = model_file("cylinder").read_bytes()
    Path("cylinder.safetensors").write_bytes(content)
    Path("cut.safetensors").write_bytes(content[: len(content) // 2])
    Path("text.safetensors").write_text("not a model\n")
    for name in ("evil.pt", "evil.safetensors"):
        Path(name).write_bytes(pickle.dumps(Touch()))
    state = {"system": "coco-gan", "config": {}, "details": {"progress": {"step": 3}}}
    write_checkpoint("state.safetensors", {"number.updates": torch.zeros(())}, **state)
    Path("plain.txt").write_text("a file, where a folder should be")
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("no picture")
    Path("pictures").mkdir()
    Image.new("RGB", (12, 12), "red").save("pictures/red.png")
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its exit status, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zellige", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    return command


def contents(folder: Path) -> Iterator[tuple[str, bytes | None]]:
    for path in sorted(folder.rglob("*")):
        yield str(path), path.read_bytes() if path.is_file() else None


def panorama(*arguments: object, model: str = "./cylinder.safetensors", out: str = "out.tif") -> tuple[object, ...]:
    return "panorama", model, "--out", out, *arguments


def generate(*arguments: object, model: str = "./cylinder.safetensors", out: str = "images") -> tuple[object, ...]:
    return "generate", model, "--out", out, *arguments


def train(*arguments: object, recipe: str = "celeba-64", out: str = "run") -> tuple[object, ...]:
    return "train", recipe, "--out", out, *arguments


REFUSED = {
    # models
    "unknown model": (generate(model="nonsense"), "there is no model 'nonsense'; bundled models: "),
    "unknown model, panorama": (panorama(model="nonsense"), "there is no model 'nonsense'; bundled models: "),
    "unknown model, evaluate": (("evaluate", "nonsense"), "there is no model 'nonsense'; bundled models: "),
    "missing checkpoint": (generate(model="gone.safetensors"), "gone.safetensors does not exist"),
    "folder as checkpoint": (generate(model="./empty"), "is not a regular file"),
    "truncated checkpoint": (generate(model="cut.safetensors"), "cut.safetensors"),
    "text as checkpoint": (generate(model="text.safetensors"), "text.safetensors"),
    "hostile pickle": (generate(model="evil.pt"), "convert it"),
    "hostile pickle, renamed": (panorama(model="evil.safetensors"), "evil.safetensors"),
    "training state": (panorama(model="state.safetensors"), "the state of a training run, not a model"),
    "models of no folder": (("models", "gone"), "gone is not a folder"),
    "unknown model, info": (("info", "nonsense"), "there is no model 'nonsense'; bundled models: "),
    "truncated checkpoint, info": (("info", "./cut.safetensors"), "cut.safetensors"),
    "training state, info": (("info", "./state.safetensors"), "the state of a training run, not a model"),
    "rewrites of no model": (("info", "--rewrites"), "--rewrites is about a model's layers; name one"),
    "unknown device, info": (("info", "./cylinder.safetensors", "--device", "tpu"), "use auto, cpu or cuda"),
    "unknown precision, info": (
        ("info", "./cylinder.safetensors", "--precision", "fp8"), "there is no precision 'fp8'; use auto, fp32"),
    # sizes and numbers
    "size 0": (panorama("--size", "0x24"), "the width must be positive, not 0"),
    "negative size": (panorama("--size=-32x24"), "the width must be positive, not -32"),
    "not a multiple": (panorama("--size", "100x24"), "the nearest is 96 or 128"),
    "not a multiple, small": (panorama("--size", "5x"), "the nearest is 32"),
    "height of an open axis": (panorama("--size", "64x48"), "always 24, not 48; leave it out or give 24"),
    "garbage size": (panorama("--size", "huge"), "'huge' is no size; write WIDTHxHEIGHT"),
    "three sides": (panorama("--size", "1x2x3"), "'1x2x3' is no size; write WIDTHxHEIGHT"),
    "one side": (panorama("--size", "64"), "'64' is no size; write WIDTHxHEIGHT"),
    "fraction": (panorama("--size", "6.4x24"), "'6.4x24' is no size; write WIDTHxHEIGHT"),
    "no images": (generate("-n", 0), "0 images cannot be generated; ask for 1 or more"),
    "negative seed": (generate("--seed", -1), "the seed must be 0 or more, not -1"),
    "negative seed, panorama": (panorama("--seed", -1, "--size", "64x"), "the seed must be 0 or more, not -1"),
    # memory
    "small budget": (panorama("--memory", "1MiB"), "--memory 1MiB is too small. Try --memory "),
    "smaller budget": (panorama("--memory", 1), "--memory 1 is too small. Try --memory "),
    "garbage budget": (panorama("--memory", "lots"), "'lots' is no amount of memory; write it as 512MiB"),
    "no budget": (panorama("--memory", "0GiB"), "'0GiB' is no amount of memory; write it as 512MiB"),
    # output
    "missing folder": (panorama(out="gone/out.tif"), "there is no folder"),
    "file as folder": (panorama(out="plain.txt/out.tif"), "plain.txt/out.tif"),
    "unwritable folder": (panorama(out="/proc/out.tif"), "/proc/out.tif cannot be written"),
    "folder as file": (panorama(out="empty"), "empty has no known picture format"),
    "unknown extension": (panorama(out="out.jpg"), "out.jpg has no known picture format; name it .tif"),
    "no extension": (panorama(out="out"), "out has no known picture format; name it .tif"),
    "huge PNG": (panorama("--size", "4194304x", out="out.png"), "Write out.tif instead"),
    "preview in no folder": (panorama("--preview", "gone/small.png"), "there is no folder"),
    "images in a file": (generate(out="plain.txt"), "plain.txt cannot be written"),
    "images below a file": (generate(out="plain.txt/images"), "plain.txt/images cannot be written"),
    "images where none can be": (generate(out="/proc/images"), "/proc/images cannot be written"),
    # devices
    "unknown device": (generate("--device", "tpu"), "use auto, cpu or cuda"),
    "unknown device, panorama": (panorama("--device", "gpu0"), "use auto, cpu or cuda"),
    "unknown precision": (generate("--precision", "fp8"), "there is no precision 'fp8'; use auto, fp32, fp16 or bf16"),
    "half precision on a CPU": (
        panorama("--device", "cpu", "--precision", "fp16"), "fp16 is not offered on a CPU"),
    # training
    "unknown recipe": (train(recipe="nonsense"), "there is no recipe 'nonsense'; recipes: "),
    "unknown setting": (train("--set", "speed=2"), "the recipe has no setting 'speed'; it has "),
    "unknown setting of the model": (train("--set", "model.speed=2"), "the recipe has no setting 'model.speed'"),
    "setting without a value": (train("--set", "batch"), "'batch' is no setting; write --set KEY=VALUE"),
    "bad value": (train("--set", "batch=many"), "the setting batch cannot be 'many'"),
    "bad value of the model": (train("--set", "model.patch=7"), "patch must be a power of two"),
    "impossible lattice": (train("--set", "model.rows=1"), "needs at least 3 micro patches, not 1"),
    "no steps": (train("--steps", 0, *TINY), "the setting steps cannot be 0"),
    "data without images": (train("--data", "empty"), "empty holds no readable image"),
    "missing data": (train("--data", "gone"), "gone is not a folder"),
    "run in a file": (train(*TINY, "--steps", 1, out="plain.txt"), "plain.txt cannot be made a folder for the run"),
    "training on no device": (train(*TINY, "--steps", 1, "--device", "tpu"), "use auto, cpu or cuda"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, folder: Path, case: str) -> None:
    arguments, part = REFUSED[case]
    before = list(contents(folder))
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("zellige: ") and err.count("\n") == 1 and part in err
    assert "Traceback" not in err
    assert list(contents(folder)) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_refused(run: Run) -> None:
    assert run(*generate("--device", "cuda"))[0] == 2


def test_an_older_picture_survives_a_refusal(run: Run) -> None:
    Path("out.tif").write_bytes(b"older")
    assert run(*panorama("--memory", "1MiB"))[0] == 2
    assert Path("out.tif").read_bytes() == b"older"


def test_an_unknown_recipe_gets_the_list_of_all(run: Run) -> None:
    from zellige.training.systems import RECIPES

    assert all(name in run(*train(recipe="nonsense"))[2] for name in RECIPES)


def test_an_unknown_model_gets_the_list_of_the_bundled_ones(run: Run) -> None:
    assert all(path.stem in run(*generate(model="nonsense"))[2] for path in BUNDLED.glob("*.safetensors"))


def test_the_smallest_budget_in_the_sentence_works(run: Run) -> None:
    named = run(*panorama("--memory", "1MiB"))[2].split("Try --memory ")[1].removesuffix(".\n")
    assert run(*panorama("--memory", named))[0] == 0


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(UnknownModelError):
        run("--debug", *generate(model="nonsense"))


def one_object(output: tuple[int, str, str]) -> dict[str, Any]:
    status, out, err = output
    assert (status, err) == (0, "") and out.count("\n") == 1
    report = json.loads(out)
    assert isinstance(report, dict)
    return report


def test_info_as_json(run: Run) -> None:
    report = one_object(run("info", "--json"))
    assert {"zellige", "python", "packages", "default_device", "devices", "threads", "cores"} <= set(report)
    cpu = report["devices"]["cpu"]
    assert set(cpu) == {"name", "free_memory_bytes", "precision", "kernel_backends"}
    assert cpu["precision"] in ("fp32", "bf16") and cpu["kernel_backends"][-1] == "reference"


def test_models_as_json(run: Run, model_file: ModelFile) -> None:
    report = one_object(run("models", model_file("cylinder").parent, "--json"))
    assert set(report) == {"models"}
    row = next(row for row in report["models"] if row["name"] == "cylinder")
    assert {"name", "system", "resolution", "parameters", "licence"} <= set(row)
    assert (row["system"], row["resolution"]) == ("coco-gan", "32x24")


def test_generate_as_json(run: Run) -> None:
    report = one_object(run(*generate("-n", 3, "--seed", 4, "--device", "cpu", "--precision", "fp32", "--json")))
    assert {"seconds", "device", "precision", "seed"} <= set(report)
    assert (report["model"], report["images"], report["seed"]) == ("cylinder", 3, 4)
    assert (report["device"], report["precision"]) == ("cpu", "fp32")
    names = sorted(path.name for path in Path("images").iterdir())
    assert names == sorted(Path(path).name for path in [*report["files"], report["sheet"]])
    assert len(report["files"]) == 3
    assert {Image.open(path).size for path in report["files"]} == {(32, 24)}


def test_generated_files_do_not_depend_on_their_number(run: Run) -> None:
    for count, out in ((2, "few"), (5, "many")):
        assert run(*generate("-n", count, out=out))[0] == 0
    for name in ("cylinder-0-0000.png", "cylinder-0-0001.png"):
        assert Path("few", name).read_bytes() == Path("many", name).read_bytes()


def test_panorama_as_json(run: Run) -> None:
    report = one_object(
        run(*panorama("--size", "96x", "--memory", "96MiB", "--seed", 4, "--preview", "small.png", "--json"))
    )
    contract = {"seconds", "device", "precision", "seed", "width", "height", "patches", "batch",
                "megapixels_per_second", "memory_budget_bytes", "peak_memory_bytes"}  # fmt: skip
    assert contract <= set(report)
    assert (report["width"], report["height"], report["seed"]) == (96, 24, 4)
    assert report["memory_budget_bytes"] == 96 * 2**20
    assert Image.open("out.tif").size == Image.open("small.png").size == (96, 24)


@pytest.mark.parametrize("size", ["64x24", "64x", "64xnative", "64X24"])
def test_a_side_that_is_left_out_is_the_models(run: Run, size: str) -> None:
    assert run(*panorama("--size", size, out="out.png"))[0] == 0
    assert Image.open("out.png").size == (64, 24)


def test_the_seed_and_not_the_budget_decides_the_picture(run: Run) -> None:
    for name, seed, memory in (("a.tif", 1, "64MiB"), ("b.tif", 1, "256MiB"), ("c.tif", 2, "64MiB")):
        assert run(*panorama("--size", "96x", "--seed", seed, "--memory", memory, out=name))[0] == 0
    assert Path("a.tif").read_bytes() == Path("b.tif").read_bytes()
    pictures = [np.asarray(Image.open(name)) for name in ("a.tif", "c.tif")]
    assert (pictures[0] != pictures[1]).any()


def test_info_says_what_a_model_is(run: Run) -> None:
    report = one_object(run("info", "./cylinder.safetensors", "--precision", "fp32", "--device", "cpu", "--json"))
    row = next(row for row in one_object(run("models", ".", "--json"))["models"] if row["name"] == "cylinder")
    assert {key: report[key] for key in row} == row | {"path": "cylinder.safetensors"}
    assert (report["device"], report["precision"]) == ("cpu", "fp32")
    assert report["config"]["topology"] == "cylinder" and "rewrites" not in report


def test_info_says_which_forms_layers_have_and_remembers(run: Run) -> None:
    command = ("info", "./cylinder.safetensors", "--rewrites", "--precision", "fp32", "--device", "cpu")
    first, second = (one_object(run(*command, "--json"))["rewrites"] for _ in range(2))
    assert first and all(row.pop("cached") for row in second)
    assert [{key: row[key] for key in row if key != "cached"} for row in first] == second
    row = next(row for row in first if row["kind"] == "UpConv")
    assert row["layer"] == "blocks.0.conv1" and row["dtype"] == "float32"
    assert {"as trained", "phases"} <= set(row["milliseconds"]) and row["form"] in row["milliseconds"]
    assert row["gain"] == row["milliseconds"]["as trained"] / row["milliseconds"][row["form"]]
    status, out, _ = run(*command)
    assert status == 0
    for row in first:
        line = next(line for line in out.splitlines() if line.strip().startswith(row["layer"]))
        assert f"{row['milliseconds'][row['form']]:.4g} *" in line and line.rstrip().endswith("before")


@pytest.mark.parametrize(
    "arguments", [("info",), ("info", "./cylinder.safetensors"), ("models",), generate("-n", 2), panorama()]
)
def test_without_json_people_get_a_table(run: Run, arguments: tuple[object, ...]) -> None:
    status, out, _ = run(*arguments)
    assert status == 0 and out.strip()
    with pytest.raises(ValueError):
        json.loads(out)


@pytest.mark.parametrize(("given", "verb", "spins"), [
    ({}, "models", "10000"), ({}, "bench", None), ({"GOMP_SPINCOUNT": "7"}, "models", "7"),
    ({"OMP_WAIT_POLICY": "PASSIVE"}, "models", None),
])  # fmt: skip
def test_threads_spin_briefly_unless_told_otherwise(
    run: Run, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], verb: str, spins: str | None
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run(verb, "--help")
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ.get("OMP_WAIT_POLICY") == given.get("OMP_WAIT_POLICY")


def real(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    words = [sys.executable, "-m", "zellige.cli", *map(str, arguments)]
    # Rewrites are chosen for a number of threads, and decide last bits.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def test_a_refusal_by_the_real_command(folder: Path) -> None:
    done = real(*generate(model="evil.safetensors"), cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("zellige: evil.safetensors") and done.stderr.count("\n") == 1
    assert not Path("images").exists() and not Path("hit").exists()


def test_a_panorama_by_the_real_command_is_the_same_bytes(folder: Path, run: Run) -> None:
    arguments = ("--size", "96x", "--memory", "96MiB", "--json")
    done = real(*panorama(*arguments, out="real.tif"), cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["width"] == 96
    one_object(run(*panorama(*arguments)))
    assert Path("real.tif").read_bytes() == Path("out.tif").read_bytes()


@pytest.mark.parametrize("arguments", [["--help"], ["panorama", "--help"], ["train", "--help"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "import zellige\n"
        "from zellige.cli import main\n"
        f"sys.argv = ['zellige', *{arguments}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    sys.exit(end.code or sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: zellige" in done.stdout
