import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from zellige.engine.panorama import journal
from zellige.engine.panorama.canvas.canvas import Canvas

from .command import BIRDS, CPU, TILES, Run, one_object, panorama, refused

REFUSED = {
    # sizes
    "size 0": (panorama("--size", "0x24"), "the width must be positive, not 0"),
    "negative size": (panorama("--size=-32x24"), "the width must be positive, not -32"),
    "not a multiple": (panorama("--size", "100x24"), "the nearest is 96 or 128"),
    "not a multiple, small": (panorama("--size", "5x"), "the nearest is 32"),
    "height of an open axis": (panorama("--size", "64x48"), "always 24, not 48; leave it out or give 24"),
    "garbage size": (panorama("--size", "huge"), "'huge' is no size; write WIDTHxHEIGHT"),
    "three sides": (panorama("--size", "1x2x3"), "'1x2x3' is no size; write WIDTHxHEIGHT"),
    "one side": (panorama("--size", "64"), "'64' is no size; write WIDTHxHEIGHT"),
    "fraction": (panorama("--size", "6.4x24"), "'6.4x24' is no size; write WIDTHxHEIGHT"),
    # memory
    "small budget": (panorama("--memory", "1MiB"), "--memory 1MiB is too small. Try --memory "),
    "smaller budget": (panorama("--memory", 1), "--memory 1 is too small. Try --memory "),
    "garbage budget": (panorama("--memory", "lots"), "'lots' is no amount of memory; write it as 512MiB"),
    "no budget": (panorama("--memory", "0GiB"), "'0GiB' is no amount of memory; write it as 512MiB"),
    # output
    "missing folder": (panorama(out="gone/out.tif"), "there is no folder"),
    "file as folder": (panorama(out="plain.txt/out.tif"), "plain.txt/out.tif"),
    "unwritable folder": (panorama(out="/proc/out.tif"), "/proc/out.tif cannot be written"),
    "folder as file": (panorama("--overwrite", out="empty"), "empty has no known picture format"),
    "unknown extension": (panorama(out="out.jpg"), "out.jpg has no known picture format; name it .tif"),
    "no extension": (panorama(out="out"), "out has no known picture format; name it .tif"),
    "huge PNG": (panorama("--size", "4194304x", out="out.png"), "Write out.tif instead"),
    "unknown compression": (panorama("--compression", "lzw"), ".tif takes deflate, none, zstd or jpeg"),
    "another format's compression": (panorama("--compression", "zstd", out="out.png"), ".png takes deflate"),
    "quality without JPEG": (panorama("--quality", 90), "out.tif has the compression deflate; leave the quality out"),
    "quality 0": (panorama("--compression", "jpeg", "--quality", 0), "--quality must be from 1 to 100, not 0"),
    "preview in no folder": (panorama("--preview", "gone/small.png"), "there is no folder"),
    "no region": (panorama("--region", "1,2,3"), "'1,2,3' is no region; write X,Y,WIDTH,HEIGHT"),
    "empty region": (panorama("--region", "0,0,0,4"), "a region of 0x4 is empty"),
    "region outside": (panorama("--region", "90,0,16,8", "--size", "96x"), "reaches outside of the 96x"),
    "region before": (panorama("--region=-1,0,16,8"), "reaches outside of the"),
    # maps
    "map without legend": (panorama("--map", "a.png"), "a map needs a legend"),
    "legend without map": (panorama("--legend", "plain.txt"), "legend goes with a map"),
    "soften without map": (panorama("--soften", 3), "soften goes with a map"),
    "legend that is no TOML": (panorama("--map", "a.png", "--legend", "plain.txt"), "the legend plain.txt is no TOML"),
    "missing legend": (panorama("--map", "a.png", "--legend", "gone.toml"), "there is no file gone.toml"),
    "negative softening": (panorama("--map", "a.png", "--soften", -1), "--soften must be"),
    "varying too much": (panorama("--map", "a.png", "--vary", 1.5), "--vary must be from 0 to 1"),
    "a map as output": (panorama("--map", "a.png", "--legend", "plain.txt", "--overwrite", out="a.png"),
                        "--out would write a.png, which is also --map"),
    # workers
    "no workers": (panorama("--workers", 0), "--workers must be from 1 to 256, not 0"),
    "too many workers": (panorama("--workers", 257), "--workers must be from 1 to 256, not 257"),
    "devices that are no GPUs": (panorama("--devices", "cpu,cpu"), "are CUDA devices such as cuda:0,cuda:1, not cpu"),
    "unknown devices": (panorama("--devices", "gpu0,gpu1"), "there is no device 'gpu0'"),
    "fewer devices than workers": (panorama("--workers", 3, "--devices", "cpu,cpu"), "3 workers do not fit 2 devices"),
    "a cluster and workers": (panorama("--ray", "auto", "--workers", 2), "--ray does not use --workers"),
    "a prediction of a cluster": (panorama("--ray", "auto", "--dry-run"), "--ray does not use --dry-run"),
    "a device and devices": (panorama("--devices", "cpu", "--device", "cpu"), "--devices does not use --device"),
    "small budget of workers": (panorama("--workers", 9, "--memory", "64MiB"), "in each of 9 workers; --memory 64MiB"),
    # models
    "a model without panoramas": (panorama(model=BIRDS), "panorama"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    refused(run, *REFUSED[case])


@pytest.mark.parametrize("spelling", ["out.png", "./out.png", "empty/../out.png", "absolute", "link/out.png"])
def test_a_preview_does_not_replace_its_panorama(run: Run, folder: Path, spelling: str) -> None:
    Path("link").symlink_to(".")
    preview = str(folder / "out.png") if spelling == "absolute" else spelling
    status, out, err = run(*panorama("--size", "64x", "--preview", preview, out="out.png"))
    assert (status, out) == (2, "")
    assert err == f"zellige: --preview would write {Path(preview)}, which is also --out; give --preview another name\n"
    assert not Path("out.png").exists()


def test_links_of_one_older_file_are_the_same_output(run: Run) -> None:
    Path("out.png").write_bytes(b"older")
    os.link("out.png", "hard.png")
    Path("soft.png").symlink_to("out.png")
    for preview in ("hard.png", "soft.png"):
        refused(run, panorama("--preview", preview, "--overwrite", out="out.png"), "which is also --out")


def test_a_panorama_is_not_written_over_its_model(run: Run) -> None:
    Path("model.png").symlink_to("cylinder.safetensors")
    refused(run, panorama("--overwrite", out="model.png"), "--out would write model.png, which is also the model")


def test_files_are_replaced_only_when_asked(run: Run) -> None:
    Path("out.tif").write_bytes(b"older")
    Path("small.png").write_bytes(b"older")
    refused(run, panorama(), "out.tif exists already; choose another name, or replace it with --overwrite")
    refused(run, panorama("--preview", "small.png", out="new.tif"), "small.png exists already")
    assert run(*panorama("--preview", "small.png", "--overwrite"))[0] == 0
    assert Image.open("out.tif").size == Image.open("small.png").size == (32, 24)


def test_an_older_picture_survives_a_refusal(run: Run) -> None:
    Path("out.tif").write_bytes(b"older")
    assert run(*panorama("--memory", "1MiB", "--overwrite"))[0] == 2
    assert Path("out.tif").read_bytes() == b"older"


def test_the_smallest_budget_in_the_sentence_works(run: Run) -> None:
    named = run(*panorama("--memory", "1MiB"))[2].split("Try --memory ")[1].removesuffix(".\n")
    assert run(*panorama("--memory", named))[0] == 0


def test_the_report_has_what_was_asked_and_what_it_took(run: Run) -> None:
    report = one_object(
        run(*panorama("--size", "96x", "--memory", "96MiB", "--seed", 4, "--preview", "small.png", "--json"))
    )
    contract = {"seconds", "device", "precision", "seed", "width", "height", "patches", "batch",
                "megapixels_per_second", "memory_budget_bytes", "peak_memory_bytes", "seconds_generate",
                "seconds_encode", "seconds_write", "seconds_waiting"}  # fmt: skip
    assert contract <= set(report)
    assert (report["width"], report["height"], report["seed"]) == (96, 24, 4)
    assert report["memory_budget_bytes"] == 96 * 2**20
    assert Image.open("out.tif").size == Image.open("small.png").size == (96, 24)


@pytest.mark.parametrize("size", ["64x24", "64x", "64xnative", "64X24"])
def test_a_side_that_is_left_out_is_the_models(run: Run, size: str) -> None:
    status, out, _ = run(*panorama("--size", size, out="out.png"))
    assert status == 0 and "megapixels_per_second" in out and "{" not in out
    assert Image.open("out.png").size == (64, 24)


def test_the_seed_and_not_the_budget_decides_the_picture(run: Run) -> None:
    for name, seed, memory in (("a.tif", 1, "64MiB"), ("b.tif", 1, "256MiB"), ("c.tif", 2, "64MiB")):
        assert run(*panorama("--size", "96x", "--seed", seed, "--memory", memory, out=name))[0] == 0
    assert Path("a.tif").read_bytes() == Path("b.tif").read_bytes()
    pictures = [np.asarray(Image.open(name)) for name in ("a.tif", "c.tif")]
    assert (pictures[0] != pictures[1]).any()


def test_a_region_is_the_crop_of_the_whole(run: Run) -> None:
    assert run(*panorama("--size", "96x", out="whole.png"))[0] == 0
    report = one_object(run(*panorama("--size", "96x", "--region", "17,3,40,9", "--json", out="part.png")))
    whole, part = (np.asarray(Image.open(name)) for name in ("whole.png", "part.png"))
    assert (part == whole[3:12, 17:57]).all()
    assert report["region"] == [17, 3, 40, 9] and (report["width"], report["height"]) == (40, 9)
    assert "--region 17,3,40,9" in json.loads(Image.open("part.png").text["Description"])["command"]


def test_a_dry_run_predicts_and_writes_nothing(run: Run, folder: Path) -> None:
    there = set(folder.iterdir())
    said = one_object(run(*panorama("--size", "960x", "--dry-run", "--preview", "small.png", "--json")))
    assert set(folder.iterdir()) == there
    made = one_object(run(*panorama("--size", "960x", "--json")))
    assert {key: said[key] for key in ("width", "height", "block", "seed", "turns", "out")} == {
        key: made[key] for key in ("width", "height", "block", "seed", "turns", "out")
    }
    assert said["predicted_memory_bytes"] == made["predicted_memory_bytes"] and said["predicted_seconds"] > 0
    assert abs(said["patches"] / made["patches"] - 1) < 0.2
    assert abs(said["predicted_file_bytes"] / Path("out.tif").stat().st_size - 1) < 0.2
    assert "peak_memory_bytes" not in said
    refused(run, panorama("--dry-run", "--region", "0,0,0,1", out="other.tif"), "is empty")


def test_a_map_says_what_lies_where(run: Run) -> None:
    Path("map.toml").write_text('["#ff0000"]\nseed = 7\n')
    report = one_object(run(*panorama("--map", "pictures/red.png", "--legend", "map.toml", "--soften", 0, "--json")))
    assert report["regions"] == [{"colour": "#ff0000", "latent": "seed 7", "share": 1.0}]
    assert (report["map"], report["soften"], report["map_pixels_moved"]) == ("pictures/red.png", 0, 0)
    assert run(*panorama("--seed", 7, out="still.tif"))[0] == 0
    assert (tifffile.imread("out.tif") == tifffile.imread("still.tif")).all()  # the files name their commands
    status, out, _ = run(*panorama("--map", "pictures/red.png", "--legend", "map.toml", "--overwrite"))
    assert status == 0 and "#ff0000" in out and "seed 7" in out


def test_a_file_says_how_it_was_made_and_not_where(run: Run, folder: Path) -> None:
    options = ("--size", "96x", "--seed", 4, "--memory", "96MiB", "--preview", "small.png", *CPU)
    assert run(*panorama(*options, out="out.png"))[0] == 0
    known = json.loads(Image.open("out.png").text["Description"])
    assert known["command"] == f"zellige panorama {TILES} --size 96x --seed 4 --device cpu --precision fp32"
    assert known["model"] == "cylinder" and known["seed"] == "4" and known["precision"] == "fp32"
    assert known["model_sha256"] == hashlib.sha256(Path(TILES).read_bytes()).hexdigest()
    assert str(folder) not in str(known)
    assert run(*shlex.split(known["command"])[1:], "--out", "again.png")[0] == 0
    assert Path("out.png").read_bytes() == Path("again.png").read_bytes()


@pytest.mark.parametrize(
    ("package", "out", "compression"),
    [("zarr", "out.zarr", "zstd"), ("pyvips", "out.dzi", "png"), ("imagecodecs", "out.tif", "zstd")],
)
def test_every_format_has_the_same_pixels_and_a_preview(run: Run, package: str, out: str, compression: str) -> None:
    pytest.importorskip(package)
    assert run(*panorama("--size", "96x", out="out.png"))[0] == 0
    picture = np.asarray(Image.open("out.png"))
    for _ in range(2):
        done = run(*panorama("--size", "96x", "--preview", "small.png", "--compression", compression, "--overwrite",
                             out=out))  # fmt: skip
        assert done[0] == 0, done
        assert (np.asarray(Image.open("small.png")) == picture).all()
    refused(run, panorama("--size", "96x", out=out), f"{out} exists already")


def test_a_zarr_knows_on_which_axis_the_picture_closes(run: Run) -> None:
    pytest.importorskip("zarr")
    assert run(*panorama("--size", "96x", out="out.zarr"))[0] == 0
    assert json.loads(Path("out.zarr/zarr.json").read_text())["attributes"]["zellige"]["cyclic"] == [False, True]


def test_jpeg_takes_a_quality(run: Run) -> None:
    pytest.importorskip("imagecodecs")
    assert run(*panorama("--compression", "jpeg", "--quality", 75))[0] == 0
    assert run(*panorama("--compression", "jpeg", out="better.tif"))[0] == 0
    assert Path("out.tif").stat().st_size < Path("better.tif").stat().st_size


def test_a_foreign_folder_is_refused_even_to_overwrite(run: Run) -> None:
    pytest.importorskip("zarr")
    pytest.importorskip("pyvips")
    for name in ("out.zarr", "out_files"):
        Path(name).mkdir()
        Path(name, "notes.txt").write_text("theirs")
    refused(run, panorama("--overwrite", out="out.zarr"), "out.zarr is there already; remove it")
    refused(run, panorama("--overwrite", out="out.dzi"), "out_files is there already; remove it")
    refused(run, panorama(out="out.dzi"), "out_files exists already")


@pytest.mark.parametrize(("package", "out"), [("zarr", "out.zarr"), ("pyvips", "out.dzi"), ("tifffile", "out.tif")])
def test_a_missing_package_is_named_with_its_extra(
    run: Run, package: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused(run, panorama(out=out), f"pip install 'zellige[{Path(out).suffix[1:].replace('tif', 'tiff')}]'")


def test_the_help_imports_no_codec() -> None:
    program = (
        "import sys\nsys.argv = ['zellige', 'panorama', '--help']\nfrom zellige.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'zarr', 'pyvips', 'tifffile', 'imagecodecs', 'numpy'} & {*sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n" and "--compression" in done.stdout


@pytest.fixture
def unfinished(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Stop a command in the middle, like Ctrl-C."""
    monkeypatch.setattr(journal, "_SECONDS", 0)

    def stop(*arguments: object) -> None:
        stopped, plain = [], Canvas.write

        def write(canvas: Canvas, tile: np.ndarray) -> None:
            stopped.append(tile)
            if len(stopped) == 5:
                raise KeyboardInterrupt
            plain(canvas, tile)

        with monkeypatch.context() as patch:
            patch.setattr(Canvas, "write", write)
            assert run(*arguments)[0] == 130

    return stop


def test_a_stopped_command_goes_on_with_resume(run: Run, folder: Path, unfinished: Callable[..., None]) -> None:
    assert run(*panorama("--size", "4096x", out="whole.tif"))[0] == 0
    there = set(folder.iterdir())
    unfinished(*panorama("--size", "4096x"))
    assert set(folder.iterdir()) == there  # it cleans up after itself
    unfinished(*panorama("--size", "4096x", "--resume"))
    assert {path.name for path in set(folder.iterdir()) - there} == {
        ".zellige-out.tif.partial",
        ".zellige-out.tif.journal",
    }
    report = one_object(run(*panorama("--size", "4096x", "--resume", "--json", "--memory", "300MiB")))
    assert report["pixels_resumed"] > 0 and {path.name for path in set(folder.iterdir()) - there} == {"out.tif"}
    assert Path("out.tif").read_bytes() == Path("whole.tif").read_bytes()
    assert one_object(run(*panorama("--json", out="new.tif")))["pixels_resumed"] == 0


def test_a_finished_panorama_has_nothing_to_resume(run: Run) -> None:
    status, out, err = run(*panorama("--resume", "--json"))
    assert status == 0 and err == "zellige: warning: out.tif has no unfinished part to resume, so it is begun anew\n"
    before = Path("out.tif").read_bytes()
    status, out, err = run(*panorama("--resume", "--json"))
    assert (status, json.loads(out)) == (0, {"model": "cylinder", "out": "out.tif", "pixels_resumed": 0})
    assert err == "zellige: out.tif is there, and nothing of it is unfinished, so there is nothing to resume\n"
    assert Path("out.tif").read_bytes() == before
    assert run(*panorama("--resume", "--overwrite", "--seed", 5))[0] == 0
    assert Path("out.tif").read_bytes() != before


def test_another_command_is_refused_and_the_unfinished_picture_stays(run: Run, unfinished: Callable[..., None]) -> None:
    unfinished(*panorama("--size", "4096x", "--resume", *CPU))
    for other, key in (
        (("--size", "4096x", "--seed", 7), "the seed 0 and cannot go on with 7"),
        (("--size", "2048x"), r"the size [4096, 24] and cannot go on with [2048, 24]"),
        (("--size", "4096x", "--precision", "bf16"), "the precision fp32 and cannot go on with bf16"),
        (("--size", "4096x", "--compression", "none"), "the compression deflate and cannot go on with none"),
        (("--size", "4096x", "--region", "0,0,96,24"), "the region nothing and cannot go on with [0, 0, 96, 24]"),
    ):
        refused(run, panorama("--resume", *CPU, *other), f"out.tif was begun with {key}. Give what it was begun with")
    Path("out.tif").write_bytes(b"older")
    refused(run, panorama("--size", "4096x", "--resume"), "out.tif exists already")
    assert (
        one_object(run(*panorama("--size", "4096x", "--resume", "--overwrite", "--json", *CPU)))["pixels_resumed"] > 0
    )


def test_an_unfinished_picture_is_replaced_without_resume(
    run: Run, folder: Path, unfinished: Callable[..., None]
) -> None:
    unfinished(*panorama("--size", "4096x", "--resume"))
    status, _, err = run(*panorama("--size", "96x"))
    assert status == 0
    assert err == "zellige: warning: out.tif was unfinished and is begun anew; --resume would go on with it\n"
    assert not [path for path in folder.iterdir() if path.name.startswith(".zellige")]


def test_png_cannot_be_resumed(run: Run) -> None:
    sentence = "out.png cannot be resumed, because .png is compressed as a whole at the end. Name it .tif, .tiff, .zarr"
    refused(run, panorama("--resume", out="out.png"), sentence)


def test_a_locked_or_damaged_journal_is_one_sentence(run: Run, unfinished: Callable[..., None]) -> None:
    unfinished(*panorama("--size", "4096x", "--resume"))
    file = Path(".zellige-out.tif.journal")
    with file.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for resume in ((), ("--resume",)):
            refused(
                run, panorama("--size", "4096x", *resume), "another process is rendering out.tif; wait until it ends"
            )
    file.write_bytes(file.read_bytes() + b"garbage\n")
    refused(run, panorama("--size", "4096x", "--resume"), "journal is damaged (Invalid JSON: expected value")
