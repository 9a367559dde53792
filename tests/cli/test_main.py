"""What all verbs do alike: refusals, exit statuses, help, and where the report goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zellige.engine.library import BUNDLED
from zellige.errors import UnknownModelError

from .command import BIRDS, Run, generate, one_object, panorama, refused

REFUSED = {
    "unknown model": (generate(model="nonsense"), "there is no model 'nonsense'; bundled models: "),
    "unknown model, panorama": (panorama(model="nonsense"), "there is no model 'nonsense'; bundled models: "),
    "unknown model, evaluate": (("evaluate", "nonsense"), "there is no model 'nonsense'; bundled models: "),
    "missing checkpoint": (generate(model="gone.safetensors"), "gone.safetensors does not exist"),
    "folder as checkpoint": (generate(model="./empty"), "it is a folder and not a regular file"),
    "truncated checkpoint": (generate(model="cut.safetensors"), "cut.safetensors"),
    "text as checkpoint": (generate(model="text.safetensors"), "text.safetensors"),
    "hostile pickle": (generate(model="evil.pt"), "with: zellige convert FILE"),
    "hostile pickle, renamed": (panorama(model="evil.safetensors"), "evil.safetensors"),
    "training state": (panorama(model="state.safetensors"), "the state of a training run, not a model"),
    "unknown device": (generate("--device", "tpu"), "use auto, cpu or cuda"),
    "unknown device, panorama": (panorama("--device", "gpu0"), "use auto, cpu or cuda"),
    "unknown device, task": (("inpaint", BIRDS, "a.png", "--out", "new", "--device", "tpu"), "use auto, cpu or cuda"),
    "unknown precision": (generate("--precision", "fp8"), "there is no precision 'fp8'; use auto, fp32, fp16 or bf16"),
    "half precision on a CPU": (panorama("--device", "cpu", "--precision", "fp16"), "fp16 is not offered on a CPU"),
    # the command line itself
    "unknown verb": (("generat",), "no such command 'generat'. Did you mean 'generate'?"),
    "unknown option": (generate("--colour", "red"), "no such option: --colour"),
    "missing option": (("generate", "planet"), "missing option '--out'; `zellige generate --help` shows"),
    "missing argument": (("evaluate",), "missing argument 'model'"),
    "no number": (generate("-n", "many"), "--count cannot be 'many'"),
    "too many arguments": (("models", "a", "b"), "got unexpected extra argument"),
    "option without a value": (("generate", "planet", "--out"), "option '--out' requires an argument"),
    "name with a line break": (generate(model="a\nb.safetensors"), r"a\nb.safetensors does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    refused(run, *REFUSED[case])


SEED = "--seed must be from 0 to 9223372036854775807, not"
BOUNDED = {
    "no images": (generate("-n", 0), "--count must be from 1 to 1000000, not 0"),
    "negative count": (generate("--count", -3), "--count must be from 1 to 1000000, not -3"),
    "negative first": (generate("--first", -1), "--first must be from 0 to 9223372036854775807, not -1"),
    "negative seed": (generate("--seed", -1), f"{SEED} -1"),
    "large seed": (generate("--seed", 2**63), f"{SEED} {2**63}"),
    "negative seed, panorama": (panorama("--seed", -1), f"{SEED} -1"),
    "negative seed, evaluate": (("evaluate", BIRDS, "--seed", -1), f"{SEED} -1"),
    "negative seed, train": (("train", "emoji", "--out", "run", "--seed", -1), f"{SEED} -1"),
    "large seed, train": (("train", "emoji", "--out", "run", "--seed", 2**64), f"{SEED} {2**64}"),
    "one image to compare": (("evaluate", BIRDS, "--count", 1), "--count must be from 2 to 1000000, not 1"),
    "negative count to compare": (("evaluate", BIRDS, "--count", -1), "--count must be from 2 to 1000000, not -1"),
    "no steps": (("train", "emoji", "--out", "run", "--steps", 0), "--steps must be from 1 to 1000000000000, not 0"),
    "negative workers": (
        ("train", "emoji", "--out", "run", "--workers", -1),
        "--workers must be from 0 to 256, not -1",
    ),
    "no rounds": (("bench", "panorama", "planet", "--rounds", 0), "--rounds must be from 1 to 10000, not 0"),
    "no rounds, generate": (("bench", "generate", "planet", "--rounds", 0), "--rounds must be from 1 to 10000, not 0"),
    "no batch": (("export", "emoji", "--out", "x", "--max-batch", 0), "--max-batch must be from 1 to 65536, not 0"),
    "no instances": (("export", "emoji", "--out", "x", "--instances", 0), "--instances must be from 1 to 1024, not 0"),
    "huge batch": (("bench", "generate", "planet", "--batch", 10**30), "is too large to measure; give 65536 or fewer"),
}


@pytest.mark.parametrize("case", BOUNDED)
def test_numbers_out_of_bounds_are_refused_with_the_bounds(run: Run, case: str) -> None:
    refused(run, *BOUNDED[case])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_refused(run: Run) -> None:
    assert run(*generate("--device", "cuda"))[0] == 2


def test_an_unknown_model_gets_the_list_of_the_bundled_ones(run: Run) -> None:
    assert all(path.stem in run(*generate(model="nonsense"))[2] for path in BUNDLED.glob("*.safetensors"))


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(UnknownModelError):
        run("--debug", *generate(model="nonsense"))


@pytest.mark.parametrize(("given", "words", "spins"), [
    ({}, ["models"], "10000"), ({}, ["bench"], None), ({}, ["--debug", "bench"], None),
    ({}, ["--debug", "models"], "10000"), ({"GOMP_SPINCOUNT": "7"}, ["models"], "7"),
    ({"OMP_WAIT_POLICY": "PASSIVE"}, ["models"], None),
])  # fmt: skip
def test_threads_spin_briefly_unless_told_otherwise_or_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: list[str], spins: str | None
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run(*words, "--help")
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ.get("OMP_WAIT_POLICY") == given.get("OMP_WAIT_POLICY")


def real(*arguments: object, cwd: Path, **streams: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    words = [sys.executable, "-m", "zellige.cli", *map(str, arguments)]
    # Rewrites are chosen for a number of threads, and decide last bits.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    streams = {"stdout": subprocess.PIPE} | streams
    return subprocess.run(
        words, cwd=cwd, env=environment, text=True, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        **streams,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def test_a_refusal_by_the_real_command(folder: Path) -> None:
    done = real(*generate(model="evil.safetensors"), cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("zellige: evil.safetensors") and done.stderr.count("\n") == 1
    assert not Path("images").exists() and not Path("hit").exists()


def test_a_panorama_by_the_real_command_is_the_same_bytes(folder: Path, run: Run) -> None:
    arguments = ("--size", "96x", "--memory", "96MiB", "--json")
    done = real(*panorama(*arguments, out="real.tif"), cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    one_object(run(*panorama(*arguments)))
    assert Path("real.tif").read_bytes() == Path("out.tif").read_bytes()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_standard_output_is_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        done = real("--help", cwd=folder, stdout=full)
    assert done.returncode == 2
    assert done.stderr == (
        "zellige: standard output cannot be written: No space left on device; free some space or write elsewhere\n"
    )


def test_a_reader_that_went_away_is_no_reason_to_complain(folder: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = real("train", "--help", cwd=folder, stdout=theirs)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_fault(folder: Path, closed: str) -> None:
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "zellige.cli", "models"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


HELP = """
import sys
import zellige
from zellige.cli import main
for words in ("--help", "panorama --help", "train --help", "segment --help", "bench generate -h"):
    sys.argv = ["python -m zellige.cli", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0
print(sorted({"torch", "numpy", "PIL"} & set(sys.modules)))
"""


def test_help_imports_no_torch_and_calls_the_program_zellige() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage: zellige ") == 5 and done.stdout.splitlines()[-1] == "[]"


def test_help_has_the_verbs_in_panels(run: Run) -> None:
    _, out, _ = run("--help")
    places = [
        out.index(f"─ {panel} ─")
        for panel in ("Look", "Make", "OneGAN's tasks", "Train and judge", "Export", "Measure")
    ]
    assert places == sorted(places)
    assert out.index(" segment ") > places[2] > out.index(" panorama ")
