from collections.abc import Callable
from pathlib import Path

import pytest

from zellige.engine.checkpoint.file import read_header, read_tensors, write_checkpoint

from .command import TILES, Run, one_object, refused

ModelFile = Callable[[str], Path]
REFUSED = {
    "models of no folder": (("models", "gone"), "gone is not a folder"),
    "unknown model": (("info", "nonsense"), "there is no model 'nonsense'; bundled models: "),
    "truncated checkpoint": (("info", "./cut.safetensors"), "cut.safetensors"),
    "training state": (("info", "./state.safetensors"), "the state of a training run, not a model"),
    "rewrites of no model": (("info", "--rewrites"), "info without a model does not use --rewrites; leave it out"),
    "device of no model": (
        ("info", "--device", "cpu", "--precision", "fp32"),
        "info without a model does not use --device and --precision; leave them out"),
    "rewrites of an exported file": (
        ("info", "x.onnx", "--rewrites", "--device", "cpu"), "does not use --rewrites and --device; leave them out"),
    "unknown device": (("info", TILES, "--device", "tpu"), "use auto, cpu or cuda"),
    "unknown precision": (("info", TILES, "--precision", "fp8"), "there is no precision 'fp8'; use auto, fp32"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    refused(run, *REFUSED[case])


def test_info_as_json(run: Run) -> None:
    report = one_object(run("info", "--json"))
    assert {"zellige", "python", "packages", "default_device", "devices", "threads", "cores"} <= set(report)
    cpu = report["devices"]["cpu"]
    assert set(cpu) == {"name", "free_memory_bytes", "precision", "kernel_backends"}
    assert cpu["precision"] in ("fp32", "bf16") and cpu["kernel_backends"][-1] == "reference"


def test_info_is_tables_for_people(run: Run) -> None:
    status, out, _ = run("info")
    assert status == 0 and "{" not in out and '"' not in out
    assert out.index("python") < out.index("free memory") < out.index("packages") < out.index("safetensors")


def test_models_as_json(run: Run, model_file: ModelFile) -> None:
    report = one_object(run("models", model_file("cylinder").parent, "--json"))
    assert set(report) == {"models"}
    row = next(row for row in report["models"] if row["name"] == "cylinder")
    assert {"name", "system", "resolution", "parameters", "licence"} <= set(row)
    assert (row["system"], row["resolution"]) == ("coco-gan", "32x24")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_files_that_are_left_out_of_the_list_are_said_on_stderr(run: Run, form: tuple[str, ...]) -> None:
    status, out, err = run("models", ".", *form)
    assert status == 0 and "cylinder" in out and "birds" in out
    for name in ("cut.safetensors", "text.safetensors", "evil.safetensors"):
        assert sum(line.startswith("zellige: warning: left out:") and name in line for line in err.splitlines()) == 1
        assert name not in out


def test_info_says_what_a_model_is(run: Run) -> None:
    report = one_object(run("info", TILES, "--precision", "fp32", "--device", "cpu", "--json"))
    (row,) = (row for row in one_object(run("models", "only", "--json"))["models"] if row["name"] == "cylinder")
    assert {key: report[key] for key in row} == row | {"path": "cylinder.safetensors"}
    assert (report["device"], report["precision"]) == ("cpu", "fp32")
    assert report["config"]["topology"] == "cylinder" and "rewrites" not in report


@pytest.fixture(autouse=True)
def only(folder: Path) -> None:
    """A folder that holds nothing but one model, so that nothing is left out of a list of it."""
    Path("only").mkdir()
    Path("only/cylinder.safetensors").symlink_to(folder / "cylinder.safetensors")


def test_a_licence_with_brackets_is_shown_as_it_is(run: Run) -> None:
    header = read_header(TILES)
    write_checkpoint(
        "odd.safetensors", read_tensors(header), system=header.system, config=header.config,
        details={"licence": "free [/] :smile: [x]"},
    )  # fmt: skip
    for words in (("info", "./odd.safetensors", "--device", "cpu"), ("models", ".")):
        status, out, _ = run(*words)
        assert status == 0 and "free [/] :smile: [x]" in out


def test_info_says_which_forms_layers_have_and_remembers(run: Run) -> None:
    command = ("info", TILES, "--rewrites", "--precision", "fp32", "--device", "cpu")
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
