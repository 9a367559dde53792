from pathlib import Path

import pytest

from .command import BIRDS, Run, refused


def export(*arguments: object, out: str = "new.onnx") -> tuple[object, ...]:
    return "export", BIRDS, "--out", out, *arguments


REFUSED = {
    "unknown format": (export("--to", "tflite"), "there is no export to 'tflite'; use onnx, tensorrt or"),
    "options of other formats": (
        export("--target", "sm_86", "--profile", "1,1,1", "--max-batch", 32, "--instances", 1, "--serve-on", "gpu"),
        "--to onnx does not use --target, --profile, --max-batch, --instances and --serve-on; leave them out"),
    "repository's options": (
        export("--to", "tensorrt", "--max-batch", 4), "--to tensorrt does not use --max-batch; leave it out"),
    "engine's options": (
        export("--to", "triton-repository", "--profile", "1,8,32"),
        "--to triton-repository does not use --profile; leave it out"),
    "a profile beyond all memory": (
        export("--to", "tensorrt", "--profile", f"1,8,{10**30}"), "give 65536 or fewer"),
    "no profile": (export("--to", "tensorrt", "--profile", "1,8"), "'1,8' is no profile; write the least, usual"),
    "an older file": (export(out="older.csv"), "older.csv exists already; choose another name"),
    "over the model": (
        export("--overwrite", out="birds.safetensors"), "--out would write birds.safetensors, which is also the model"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    refused(run, *REFUSED[case])


def test_weights_beside_the_file_are_not_written_over_the_model(run: Run) -> None:
    Path("new.onnx.data").symlink_to("birds.safetensors")
    refused(run, export(), "--out would write new.onnx.data, which is also the model")


def test_help_lists_what_every_system_can_export(run: Run) -> None:
    out = " ".join(run("export", "--help")[1].replace("│", " ").split())
    assert (
        "COCO-GAN: generate, patches, strip." in out and "OneGAN: generate, like, reconstruct, segment, cluster" in out
    )
