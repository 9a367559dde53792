"""Repositories for Triton Inference Server, read back by the schema of its own client."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zellige.errors import CheckpointError, OutputError, SizeError, TaskError
from zellige.export.server.repository import Port, write_repository

onnx = pytest.importorskip("onnx")
text_format = pytest.importorskip("google.protobuf.text_format")
schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")

PORTS = (
    [Port("child", "int64", ("N",)), Port("latent", "float32", ("N", 100))],
    [Port("images", "uint8", ("N", 64, 64, 3))],
)


def save_model(path: Path, batch: int | str = "N", dtype: int = onnx.TensorProto.FLOAT, external: bool = False) -> Path:
    """Classes [N] and latents [N, 6] to y = table[class] + latent."""
    table = onnx.numpy_helper.from_array(np.arange(30, dtype=np.float32).reshape(5, 6), "table")
    helper = onnx.helper
    nodes = [
        helper.make_node("Gather", ["table", "child"], ["row"]), helper.make_node("Add", ["row", "latent"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=dtype),
    ]  # fmt: skip
    inputs = [
        helper.make_tensor_value_info("child", onnx.TensorProto.INT64, [batch]),
        helper.make_tensor_value_info("latent", onnx.TensorProto.FLOAT, [batch, 6]),
    ]
    outputs = [helper.make_tensor_value_info("y", dtype, [batch, 6])]
    graph = helper.make_graph(nodes, "sum", inputs, outputs, [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, {"zellige.system": "onegan", "zellige.config": '{"a": "\u00e9\\n"}', "other": "x"})
    options = {"save_as_external_data": True, "location": "y.data", "size_threshold": 0} if external else {}
    onnx.save(model, path, **options)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "m.onnx")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "m.plan"
    path.write_bytes(b"ptrt engine")
    return path


def config_of(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


class TestOnnx:
    def test_the_model_lies_where_the_server_looks(self, model: Path, tmp_path: Path) -> None:
        report = write_repository(model, tmp_path / "deep" / "repository", name="emoji")
        folder = tmp_path / "deep" / "repository" / "emoji"
        assert [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))] == [
            "1",
            "1/model.onnx",
            "config.pbtxt",
        ]
        assert (folder / "1/model.onnx").read_bytes() == model.read_bytes()
        assert report["files"] == [str(folder / "1/model.onnx"), str(folder / "config.pbtxt")]
        assert report["bytes"] == sum(Path(file).stat().st_size for file in report["files"])
        assert (report["name"], report["backend"]) == ("emoji", "onnxruntime")
        assert report["config"] == (folder / "config.pbtxt").read_text()

    def test_the_configuration_says_what_was_asked_for(self, model: Path, tmp_path: Path) -> None:
        write_repository(
            model, tmp_path / "r", name="emoji", max_batch=16, instances=2, device="cpu", preferred=(8, 4, 8),
            max_queue_delay_us=500, metadata={"extra": "1"},
        )  # fmt: skip
        config = config_of(tmp_path / "r" / "emoji")
        assert (config.name, config.backend, config.platform) == ("emoji", "onnxruntime", "onnxruntime_onnx")
        assert (config.max_batch_size, config.default_model_filename) == (16, "model.onnx")
        assert config.version_policy.latest.num_versions == 1
        assert [(group.count, group.kind) for group in config.instance_group] == [
            (2, schema.ModelInstanceGroup.KIND_CPU)
        ]
        assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
        assert config.dynamic_batching.max_queue_delay_microseconds == 500
        assert {key: value.string_value for key, value in config.parameters.items()} == {
            "zellige.system": "onegan", "zellige.config": '{"a": "\u00e9\\n"}', "extra": "1",
        }  # fmt: skip

    def test_the_batch_is_no_side_of_inputs_and_outputs(self, model: Path, tmp_path: Path) -> None:
        write_repository(model, tmp_path / "r", name="emoji")
        config = config_of(tmp_path / "r" / "emoji")
        child, latent = config.input
        assert (child.name, child.data_type, list(child.dims)) == ("child", schema.TYPE_INT64, [1])
        assert child.HasField("reshape") and list(child.reshape.shape) == []  # [N, 1] becomes [N]
        assert (latent.name, latent.data_type, list(latent.dims)) == ("latent", schema.TYPE_FP32, [6])
        assert not latent.HasField("reshape")
        assert [(y.name, y.data_type, list(y.dims)) for y in config.output] == [("y", schema.TYPE_FP32, [6])]

    @pytest.mark.parametrize(("preferred", "sizes"), [((), [1, 32]), ((8,), [1, 8, 32]), ((1, 32), [1, 32])])
    def test_instances_are_warmed_up_with_batches_that_the_model_takes(
        self, model: Path, tmp_path: Path, preferred: tuple[int, ...], sizes: list[int]
    ) -> None:
        write_repository(model, tmp_path / "r", name="emoji", preferred=preferred)
        samples = config_of(tmp_path / "r" / "emoji").model_warmup
        assert [sample.batch_size for sample in samples] == sizes
        assert len({sample.name for sample in samples}) == len(sizes)
        for sample in samples:
            child, latent = sample.inputs["child"], sample.inputs["latent"]
            assert (child.data_type, list(child.dims), child.zero_data) == (schema.TYPE_INT64, [1], True)
            assert (latent.data_type, list(latent.dims), latent.random_data) == (schema.TYPE_FP32, [6], True)

    @pytest.mark.parametrize("dtype", ["FLOAT", "UINT8", "INT8", "INT32", "INT64", "BOOL", "FLOAT16", "BFLOAT16"])
    def test_data_types_have_the_server_s_names(self, tmp_path: Path, dtype: str) -> None:
        """Held against the table of the server's own client, by way of numpy."""
        number = onnx.TensorProto.DataType.Value(dtype)
        write_repository(save_model(tmp_path / "m.onnx", dtype=number), tmp_path / "r", name="emoji")
        from tritonclient.utils import np_to_triton_dtype

        name = "BF16" if dtype == "BFLOAT16" else np_to_triton_dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
        assert config_of(tmp_path / "r" / "emoji").output[0].data_type == schema.DataType.Value(f"TYPE_{name}")

    def test_external_data_come_along_and_the_copy_runs(self, tmp_path: Path) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        (tmp_path / "a").mkdir()
        model = save_model(tmp_path / "a" / "m.onnx", external=True)
        report = write_repository(model, tmp_path / "r", name="emoji")
        assert {Path(file).name for file in report["files"]} == {"config.pbtxt", "model.onnx", "y.data"}
        (tmp_path / "a" / "y.data").unlink()
        session = onnxruntime.InferenceSession(str(tmp_path / "r/emoji/1/model.onnx"))
        (found,) = session.run(None, {"child": np.array([2]), "latent": np.ones((1, 6), np.float32)})
        np.testing.assert_array_equal(found, np.arange(13, 19, dtype=np.float32)[None])

    def test_a_model_of_one_batch_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"m\.onnx has a fixed batch size in child; export it with any size"):
            write_repository(save_model(tmp_path / "m.onnx", batch=4), tmp_path / "r", name="emoji")

    def test_what_the_server_has_no_type_for_is_refused(self, tmp_path: Path) -> None:
        path = save_model(tmp_path / "m.onnx", dtype=onnx.TensorProto.DOUBLE)
        with pytest.raises(
            CheckpointError, match="has 'y' of the dtype number 11 of ONNX; servers take float32, uint8"
        ):
            write_repository(path, tmp_path / "r", name="emoji")

    def test_a_damaged_model_is_refused_and_nothing_is_written(self, model: Path, tmp_path: Path) -> None:
        model.write_bytes(model.read_bytes()[:-50])
        with pytest.raises(CheckpointError, match="cannot be opened as an ONNX model"):
            write_repository(model, tmp_path / "r", name="emoji")
        assert not (tmp_path / "r").exists()

    def test_an_onnx_file_needs_no_ports(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(TaskError, match="says itself what its inputs and outputs are; leave out ports"):
            write_repository(model, tmp_path / "r", name="emoji", ports=PORTS)


class TestEngines:
    def test_an_engine_is_described_by_what_is_told(self, engine: Path, tmp_path: Path) -> None:
        write_repository(engine, tmp_path / "r", name="emoji", ports=PORTS, metadata={"zellige.precision": "bf16"})
        config = config_of(tmp_path / "r" / "emoji")
        assert (config.backend, config.platform, config.default_model_filename) == (
            "tensorrt",
            "tensorrt_plan",
            "model.plan",
        )
        assert [(port.name, list(port.dims)) for port in config.input] == [("child", [1]), ("latent", [100])]
        assert [(port.name, list(port.dims)) for port in config.output] == [("images", [64, 64, 3])]
        assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
        assert config.parameters["zellige.precision"].string_value == "bf16"
        assert (tmp_path / "r/emoji/1/model.plan").read_bytes() == engine.read_bytes()

    def test_sides_of_any_size_are_left_open_and_not_warmed_up(self, engine: Path, tmp_path: Path) -> None:
        ports = ([Port("images", "uint8", ("N", "H", "W", 3))], [Port("masks", "uint8", ("N", "H", "W"))])
        write_repository(engine, tmp_path / "r", name="cut", ports=ports)
        config = config_of(tmp_path / "r" / "cut")
        assert list(config.input[0].dims) == [-1, -1, 3] and not config.model_warmup

    @pytest.mark.parametrize(
        ("ports", "reason"),
        [
            (None, "the inputs and outputs of the engine .* are not known; give them as ports="),
            (([], PORTS[1]), "must have inputs and outputs for a server; it has 0 and 1"),
            ((PORTS[0], [Port("child", "uint8", ("N", 3))]), "of different names; it has child, latent, child"),
            ((PORTS[0], [Port("y", "complex64", ("N", 3))]), "has 'y' of the dtype complex64; servers take float32"),
            ((PORTS[0], [Port("y", "uint8", ("N", 0))]), r"has 'y' of the sides \['N', 0\]; each must be 1 or more"),
            ((PORTS[0], [Port("y", "uint8", (4, 3))]), "has a fixed batch size in y; export it with any size"),
            ((PORTS[0], [Port("y", "uint8", ())]), "has a fixed batch size in y"),
        ],
    )
    def test_ports_that_do_not_do_are_refused(self, engine: Path, tmp_path: Path, ports: Any, reason: str) -> None:
        with pytest.raises(TaskError, match=reason):
            write_repository(engine, tmp_path / "r", name="emoji", ports=ports)

    def test_engines_run_on_gpus_alone(self, engine: Path, tmp_path: Path) -> None:
        with pytest.raises(TaskError, match=r"m\.plan runs on GPUs alone; take device 'gpu', or a \.onnx file"):
            write_repository(engine, tmp_path / "r", name="emoji", ports=PORTS, device="cpu")

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda path: None, "No such file"), (lambda path: path.write_bytes(b""), "it is empty"),
            (lambda path: path.write_bytes(b"<html>"), "it is a web page in place of the file"),
            (lambda path: path.write_bytes(b"text"), "it is of a format that is not known here"),
            (os.mkdir, "it is a folder"), (os.mkfifo, "it is a pipe"),
        ],
    )  # fmt: skip
    def test_files_that_are_no_engines_are_refused(
        self, make: Callable[[Path], None], tmp_path: Path, reason: str
    ) -> None:
        make(tmp_path / "other.plan")
        with pytest.raises(CheckpointError, match=f"other.plan cannot be opened as an engine: {reason}"):
            write_repository(tmp_path / "other.plan", tmp_path / "r", name="emoji", ports=PORTS)

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            TaskError, match=r"m\.safetensors is neither a \.onnx file nor an engine \(\.engine, \.plan"
        ):
            write_repository(tmp_path / "m.safetensors", tmp_path / "r", name="emoji")


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b", "/a", ".hidden", "a\n", "a b", "é", "x" * 129])
def test_names_that_are_no_folder_of_the_repository_are_refused(model: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match=f"^a model cannot be named {re.escape(repr(name))}; take letters, digits"):
        write_repository(model, tmp_path / "r", name=name)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_batch": 0}, "max_batch must be a whole number from 1 to 65536; got 0"),
        ({"max_batch": 2.0}, "max_batch must be a whole number from 1 to 65536; got 2.0"),
        ({"max_batch": True}, "max_batch must be a whole number from 1 to 65536; got True"),
        ({"instances": -1}, "instances must be a whole number from 1 to 1024; got -1"),
        ({"max_queue_delay_us": -1}, "max_queue_delay_us must be a whole number from 0 to 1000000000; got -1"),
        ({"max_batch": 8, "preferred": (4, 16)}, "preferred must be a whole number from 1 to 8; got 16"),
    ],
)
def test_numbers_out_of_range_are_refused(model: Path, tmp_path: Path, options: Any, reason: str) -> None:
    with pytest.raises(SizeError, match=f"^{reason}$"):
        write_repository(model, tmp_path / "r", name="emoji", **options)


def test_devices_that_do_not_exist_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="^instances cannot run on 'cuda'; take 'cpu' or 'gpu'$"):
        write_repository(model, tmp_path / "r", name="emoji", device="cuda")  # type: ignore[arg-type]


class TestPlaces:
    def test_a_second_model_goes_beside_the_first(self, model: Path, tmp_path: Path) -> None:
        for name in ("one", "two"):
            write_repository(model, tmp_path / "r", name=name)
        assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["one", "two"]

    def test_a_model_that_is_there_stays(self, model: Path, tmp_path: Path) -> None:
        write_repository(model, tmp_path / "r", name="emoji")
        before = (tmp_path / "r/emoji/config.pbtxt").read_bytes()
        sentence = f"^{tmp_path}/r holds the model 'emoji' already; remove {tmp_path}/r/emoji, or give another name"
        with pytest.raises(OutputError, match=sentence):
            write_repository(model, tmp_path / "r", name="emoji", max_batch=4)
        assert (tmp_path / "r/emoji/config.pbtxt").read_bytes() == before

    def test_a_folder_of_other_things_stays(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "r/emoji").mkdir(parents=True)
        (tmp_path / "r/emoji/letter.txt").write_text("dear")
        with pytest.raises(
            OutputError, match="/r/emoji exists and is no model of a repository; remove it, or give another"
        ):
            write_repository(model, tmp_path / "r", name="emoji")
        assert [path.name for path in (tmp_path / "r").rglob("*")] == ["emoji", "letter.txt"]

    def test_an_empty_folder_is_taken(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "r/emoji").mkdir(parents=True)
        write_repository(model, tmp_path / "r", name="emoji")
        assert config_of(tmp_path / "r" / "emoji").name == "emoji"

    def test_a_repository_that_is_a_file_is_refused(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="m.onnx/emoji cannot be written"):
            write_repository(model, model, name="emoji")

    def test_what_fails_amid_the_writing_leaves_nothing(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> Iterator[None]:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("shutil.copyfile", full)
        with pytest.raises(OutputError, match="r/deep/emoji cannot be written: No space left on device"):
            write_repository(model, tmp_path / "r" / "deep", name="emoji")
        assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
