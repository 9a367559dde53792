import json
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zellige.cli import main
from zellige.engine.checkpoint.file import read_header, read_tensors, write_checkpoint
from zellige.engine.device import DTYPES
from zellige.engine.library import list_models
from zellige.engine.systems import system_of
from zellige.engine.systems.graph import Output
from zellige.errors import DeviceError, OutputError, TaskError, ValuesError
from zellige.export import onnx as subject
from zellige.export.onnx import export_onnx

from ..engine.layers.modes import MODES
from .bundled import BATCHES, FILES, MODELS, Exported

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ModelFile = Callable[..., Path]
Bundled = Callable[..., Exported]
STANDARD = {"", "ai.onnx"}
# The comparisons that docs/deploying.md tells of: to one level of a byte and 0.002 on average, or to 40 dB.
COMPARISONS = {
    "fp32": {"file": "bytes"},
    "fp16": {"file in float32, weights as rounded": "bytes", "file": "psnr"},
    "bf16": {"file in float32, weights as rounded": "bytes", "file in float32": "psnr"},
}
KERNELS: dict[str, set[str]] = {
    "emoji": {"GluLayerNorm", "MaskComposite"}, "planet": {"AffineRelu"}, "terrain": {"AffineRelu"}, "keys": set(),
}  # fmt: skip
# Fused files first: engines are built of the others, so that two workers share the exports.
every_bundled_file = pytest.mark.parametrize(("flavour", "name", "precision"), FILES)


def test_every_bundled_model_is_judged_in_every_precision() -> None:
    assert {(name, precision) for _, name, precision in FILES} == set(product(MODELS, DTYPES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


# Whole pictures of COCO-GANs; their patches, and OneGANs, are in the round trips of the bundled models.
# fmt: off
PICTURES = [
    ("plane", "portable", "fp32"), ("plane", "fused", "fp16"), ("plane", "portable", "bf16"),
    ("dense", "fused", "fp32"), ("dense", "portable", "fp16"),
]
# fmt: on


@pytest.mark.parametrize(("name", "flavour", "precision"), PICTURES)
def test_the_file_computes_what_pytorch_does(
    folder: Path, model_file: ModelFile, name: str, flavour: Any, precision: str
) -> None:
    out = folder / f"{name}-{flavour}-{precision}.onnx"
    report = export_onnx(model_file(name), out, flavour=flavour, precision=precision, batches=(1, 5))
    model = onnx.load(out)
    domains = {node.domain for node in model.graph.node}
    assert domains <= STANDARD if flavour == "portable" else "zellige" in domains
    assert bool(model.functions) == (flavour == "fused")
    assert {row["batch"] for row in report["verification"]} == {1, 5}
    assert (report["bytes"], report["opset"]) == (out.stat().st_size, 20)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.slow
@every_bundled_file
def test_every_bundled_model_is_what_pytorch_computes(
    bundled: Bundled, flavour: str, name: str, precision: str
) -> None:
    rows = bundled(name, flavour, precision).report["verification"]
    judged = COMPARISONS[precision]
    assert [(row["what"], row["batch"]) for row in rows] == list(product(judged, BATCHES))
    for row in rows:
        if judged[row["what"]] == "bytes":
            assert row["max_error"] <= 1 and row["mean_error"] <= 0.002
        else:
            assert row["psnr_db"] >= 40


@pytest.mark.slow
@every_bundled_file
def test_fused_files_hold_our_nodes_with_a_function_for_each(
    bundled: Bundled, flavour: str, name: str, precision: str
) -> None:
    model = onnx.load(bundled(name, flavour, precision).path)
    ours = KERNELS[name] if flavour == "fused" else set()
    assert {node.op_type for node in model.graph.node if node.domain not in STANDARD} == ours
    assert {(function.domain, function.name) for function in model.functions} == {("zellige", kind) for kind in ours}


@pytest.mark.parametrize("task", [task for task in system_of("onegan").graphs if task != MODELS["emoji"]])
def test_every_task_is_exported(folder: Path, onegan_file: ModelFile, task: str) -> None:
    report = export_onnx(onegan_file(), folder / f"{task}.onnx", task=task, flavour="fused", batches=(3,))
    assert {value["dtype"] for value in report["outputs"]} == {"float32" if task == "cluster" else "uint8"}
    assert all(value["shape"][0] == "N" for value in report["inputs"] + report["outputs"])


def test_images_leave_as_floats_if_asked(folder: Path, onegan_file: ModelFile) -> None:
    report = export_onnx(
        onegan_file(), folder / "float.onnx", task="reconstruct", flavour="fused", output="float", batches=(3,)
    )
    sides = [value["shape"][1:] for value in report["outputs"]]
    assert sides == [[3, 64, 64], [3, 64, 64], [3, 64, 64], [1, 64, 64]]
    assert {value["dtype"] for value in report["outputs"]} == {"float32"}
    assert all(row["max_error"] <= 1e-4 for row in report["verification"])


def test_plain_onnx_runtime_makes_the_images(bundled: Bundled) -> None:
    file = bundled("emoji")
    (length,) = (value["shape"][1] for value in file.report["inputs"] if value["name"] == "latent")
    session = onnxruntime.InferenceSession(file.path)
    classes = np.zeros(7, np.int64)
    latent = np.random.default_rng(0).standard_normal((7, length), np.float32)
    (images,) = session.run(None, {"child": classes, "parent": classes, "background": classes, "latent": latent})
    assert images.shape == (7, 64, 64, 3) and images.dtype == np.uint8
    singles = [
        session.run(None, {"child": classes[:1], "parent": classes[:1], "background": classes[:1], "latent": z[None]})[
            0
        ]
        for z in latent
    ]
    assert np.abs(np.concatenate(singles).astype(int) - images).max() <= 1


def test_the_file_says_what_it_is(bundled: Bundled) -> None:
    model = onnx.load(bundled("planet").path)
    (row,) = (row for row in list_models() if row["name"] == "planet")
    width, height = row["resolution"].split("x")
    said = {entry.key.removeprefix("zellige."): entry.value for entry in model.metadata_props}
    assert json.loads(said.pop("config"))["topology"] == "cylinder"
    assert said == {
        "format": "1", "system": "coco-gan", "model": "planet", "task": "patches", "flavour": "portable",
        "precision": "fp32", "output": "image", "width": width, "height": height,
        "licence": row["licence"],
    }  # fmt: skip
    assert model.producer_name == "zellige"


def test_exporting_twice_gives_the_same_bytes(folder: Path, model_file: ModelFile) -> None:
    first, second = (
        export_onnx(model_file("dense"), folder / name, task="patches", flavour="fused", batches=(1,))
        for name in ("first.onnx", "second.onnx")
    )
    assert first["sha256"] == second["sha256"]
    assert (folder / "first.onnx").read_bytes() == (folder / "second.onnx").read_bytes()


def test_openvino_opens_the_portable_file(bundled: Bundled) -> None:
    openvino = pytest.importorskip("openvino")
    for file in map(bundled, sorted(MODELS)):
        compiled = openvino.Core().compile_model(file.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        random = np.random.default_rng(0)
        made = {
            "int64": lambda shape: np.zeros(shape, np.int64),
            "uint8": lambda shape, random=random: random.integers(0, 256, shape, np.uint8),
            "float32": lambda shape, random=random: random.uniform(-1, 1, shape).astype(np.float32),
        }
        inputs = {
            value["name"]: made[value["dtype"]]((3, *value["shape"][1:])) for value in file.report["inputs"]
        }  # fmt: skip
        right = onnxruntime.InferenceSession(file.path).run(None, inputs)[0]
        found = compiled(inputs)[0]
        assert found.shape == right.shape and np.abs(found.astype(int) - right.astype(int)).max() <= 1


def test_images_are_multiplied_by_masks_of_as_many_channels(bundled: Bundled) -> None:
    # OpenCV 5.0 cannot transpose a product of which one factor has a single channel.
    model = onnx.shape_inference.infer_shapes(onnx.load(bundled("emoji").path), data_prop=True)
    sides = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim][1:]
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    products = [
        [sides[name] for name in node.input if name in sides] for node in model.graph.node if node.op_type == "Mul"
    ]
    images = [factors for factors in products if len(factors) == 2 and all(len(shape) == 3 for shape in factors)]
    assert [3, 64, 64] in [factor for factors in images for factor in factors]
    assert all(len(set(map(tuple, factors))) == 1 for factors in images if [3, 64, 64] in factors)


def test_large_weights_lie_beside_the_file(
    folder: Path, model_file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "EXTERNAL_BYTES", 100_000)
    there = folder / "large"
    there.mkdir()
    report = export_onnx(model_file("plane"), there / "large.onnx", flavour="fused", batches=(1,))
    assert sorted(path.name for path in there.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert report["bytes"] == sum(path.stat().st_size for path in there.iterdir())
    moved = folder / "moved"
    shutil.copytree(there, moved)
    assert onnxruntime.InferenceSession(moved / "large.onnx").get_outputs()[0].name == "images"
    assert (there / "large.onnx").stat().st_size < 100_000 < (there / "large.onnx.data").stat().st_size


def test_a_link_stays_and_its_target_is_written(tmp_path: Path, onegan_file: ModelFile) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.onnx").symlink_to("elsewhere/real.onnx")
    export_onnx(onegan_file(), tmp_path / "link.onnx", task="cluster", batches=(1,))
    assert (tmp_path / "link.onnx").is_symlink()
    assert onnx.load(tmp_path / "elsewhere" / "real.onnx").graph.output


@pytest.mark.parametrize("output", ["image", "float"])
def test_images_that_are_no_numbers_leave_no_file(tmp_path: Path, model_file: ModelFile, output: Output) -> None:
    header = read_header(model_file("plane"))
    tensors = read_tensors(header, {name: tensor.shape for name, tensor in header.tensors.items()})
    broken = {name: t * 1e30 for name, t in tensors.items()}  # finite, and their products are not
    write_checkpoint(tmp_path / "nan.safetensors", broken, system="coco-gan", config=header.config)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValuesError, match=r"^nan gives values that are no numbers; .* float32: get the model again$"):
        export_onnx(tmp_path / "nan.safetensors", tmp_path / "out" / "nan.onnx", output=output)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mode", ["autocast", "meta"])
def test_modes_of_the_host_change_no_file(tmp_path: Path, onegan_file: ModelFile, mode: str) -> None:
    plain = export_onnx(onegan_file(), tmp_path / "a.onnx", task="cluster", batches=(1,))
    with MODES[mode]():
        made = export_onnx(onegan_file(), tmp_path / "b.onnx", task="cluster", batches=(1,))
    assert made["sha256"] == plain["sha256"]


def test_a_checkpoint_may_lie_on_a_disk_that_is_not_written(tmp_path: Path, onegan_file: ModelFile) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    model = disk / "model.safetensors"
    model.write_bytes(onegan_file().read_bytes())
    disk.chmod(0o555)
    before = model.stat()
    try:
        export_onnx(model, tmp_path / "out.onnx", task="cluster", batches=(1,))
        assert [path.name for path in disk.iterdir()] == ["model.safetensors"]
        assert model.stat().st_mtime_ns == before.st_mtime_ns
    finally:
        disk.chmod(0o755)


def test_what_cannot_be_is_refused_at_once(tmp_path: Path, onegan_file: ModelFile) -> None:
    file, out = onegan_file(), tmp_path / "x.onnx"
    with pytest.raises(TaskError, match=r"^there is no flavour 'plain' of ONNX files; use portable or fused$"):
        export_onnx(file, out, flavour="plain")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"^there is no output 'jpeg'; use image or float$"):
        export_onnx(file, out, output="jpeg")  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=r"^there is no precision 'int8' for export; use fp32, fp16, bf16$"):
        export_onnx(file, out, precision="int8")
    with pytest.raises(OutputError, match=r"there is no folder .*; create it\.$"):
        export_onnx(file, tmp_path / "none" / "x.onnx")
    assert list(tmp_path.iterdir()) == []


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
        def call(*words: str) -> tuple[int, str, str]:
            monkeypatch.setattr("sys.argv", ["zellige", *words])
            with pytest.raises(SystemExit) as ended:
                main()
            return (int(ended.value.code or 0), *capsys.readouterr())

        yield call

    def test_prints_one_object(self, run: Any, tmp_path: Path, onegan_file: ModelFile) -> None:
        out = tmp_path / "x.onnx"
        code, printed, _ = run(
            "export", str(onegan_file()), "--to", "onnx", "--task", "cluster", "--out", str(out), "--json"
        )
        report = json.loads(printed)
        assert (code, report["task"], report["out"]) == (0, "cluster", str(out))
        assert report["inputs"] == [{"name": "images", "dtype": "uint8", "shape": ["N", 64, 64, 3]}]

    def test_names_the_formats(self, run: Any, tmp_path: Path, onegan_file: ModelFile) -> None:
        code, _, said = run("export", str(onegan_file()), "--to", "coreml", "--out", str(tmp_path / "x"))
        assert code == 2 and said.startswith("zellige: there is no export to 'coreml'; use ")
