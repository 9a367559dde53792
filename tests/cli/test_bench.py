import pytest

from .command import BIRDS, TILES, Run, one_object, refused

REFUSED = {
    "panoramas of a model without": (("bench", "panorama", BIRDS), "has no task 'panorama'"),
    "no list of batches": (("bench", "generate", TILES, "--batch", "many"), "'many' is no list of batches"),
    "an older file": (("bench", "generate", TILES, "--save", "older.csv"), "older.csv exists already"),
    "an older plot": (("bench", "kernels", "--plot", "a.png"), "a.png exists already"),
    "one file twice": (
        ("bench", "kernels", "--save", "new", "--plot", "./new"), "--plot would write new, which is also --save"),
    "over the model": (
        ("bench", "generate", TILES, "--save", "cylinder.safetensors", "--overwrite"),
        "--save would write cylinder.safetensors, which is also the model"),
    "a missing folder": (("bench", "kernels", "--save", "gone/new.json"), "there is no folder"),
    "no dtype": (("bench", "kernels", "--dtype", ""), "there is no dtype to measure in; choose from float32"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    refused(run, *REFUSED[case])


def test_the_panoramas_report_is_one_object(run: Run) -> None:
    report = one_object(
        run(
            "bench", "panorama", TILES, "--size", "64x", "--memory", "96MiB", "--rounds", 1, "--device", "cpu", "--json"
        )
    )
    assert (report["width"], report["height"], report["rounds"]) == (64, 24, 1)
