"""Tensors whose data are not what their sides and dtype say, in the file and beside it."""

import os
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto  # noqa: E402

from zellige.engine.onnx import faults  # noqa: E402
from zellige.engine.onnx.file import open_model  # noqa: E402

from .onnx_models import added, branch, function, model, node, tensor  # noqa: E402


def opened(made: Any) -> Any:
    return open_model(made.SerializeToString())


@pytest.mark.parametrize("name", [name for name, number in TensorProto.DataType.items() if number])
@pytest.mark.parametrize("sides", [(), (0,), (3,), (2, 5)])
@pytest.mark.parametrize("raw", [False, True])
def test_what_onnx_writes_of_any_dtype_is_right(name: str, sides: tuple[int, ...], raw: bool) -> None:
    dtype = TensorProto.DataType.Value(name)
    if raw and name == "STRING":
        pytest.skip("strings are never raw")
    count = 1
    for side in sides:
        count *= side
    if raw:
        array = onnx.numpy_helper.to_array(onnx.helper.make_tensor("w", dtype, sides, [0] * count))
        weight = onnx.numpy_helper.from_array(array, "w")
        assert weight.data_type == dtype and weight.HasField("raw_data")
    else:
        weight = onnx.helper.make_tensor("w", dtype, sides, [b"a" if name == "STRING" else 0] * count)
    made = model(weights=[weight])
    assert opened(made) == made


@pytest.mark.parametrize(
    ("weight", "found"),
    [
        (
            tensor(sides=(2**40,), raw_data=b"abcd"),
            "takes 4398046511104 bytes of data in raw_data or float_data, and it has 4 raw bytes",
        ),
        (tensor(sides=(2**32, 2**32)), "takes 73786976294838206464 bytes .*, and it has none"),
        (tensor(sides=(2**62, 4)), "takes 73786976294838206464 bytes .*, and it has none"),
        (tensor(raw_data=bytes(15)), "takes 16 bytes of data .*, and it has 15 raw bytes"),
        (tensor(raw_data=bytes(17)), "and it has 17 raw bytes"),
        (tensor(float_data=[1.0] * 3), "and it has 3 entries of float_data"),
        (tensor(float_data=[1.0] * 5), "and it has 5 entries of float_data"),
        (tensor(int32_data=[1] * 4), "and it has 4 entries of int32_data"),
        (tensor(float_data=[1.0] * 4, raw_data=bytes(16)), "and it has 16 raw bytes and 1 other fields"),
        (tensor(dtype=TensorProto.STRING, string_data=[b"a"] * 3), "and it has 3 entries of string_data"),
        (tensor(dtype=TensorProto.STRING, raw_data=bytes(64)), "in raw_data or string_data, and it has none"),
        (tensor(dtype=TensorProto.INT4, sides=(3,), raw_data=bytes(3)), "takes 2 bytes .*, and it has 3 raw bytes"),
        (
            tensor(dtype=TensorProto.COMPLEX64, float_data=[0.0] * 4),
            "takes 32 bytes .*, and it has 4 entries of float_data",
        ),
        (
            tensor(raw_data=bytes(16), segment=TensorProto.Segment(begin=0, end=4)),
            "takes 16 bytes of data .*, and it has 16 raw bytes",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(weight: Any, found: str) -> None:
    with pytest.raises(
        faults.TensorDataError, match=f"^the ONNX model cannot be opened .*the tensor 'w' .*{found}; copy"
    ):
        opened(added(weight))


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (
            tensor(sides=(-1, -4), raw_data=bytes(16)),
            r"'w' has the sides \[-1, -4\], and 0 to 64 sides, none below 0, are",
        ),
        (tensor(sides=(1,) * 65, raw_data=bytes(4)), r"'w' has the sides \[1, 1, .*\], and 0 to 64 sides"),
        (tensor(dtype=99, raw_data=bytes(16)), "the tensor 'w' has the dtype 99, which ONNX does not have"),
        (tensor(dtype=0, raw_data=bytes(16)), "the tensor 'w' has the dtype 0, which ONNX does not have"),
    ],
)
def test_sides_and_dtypes_that_do_not_exist_are_refused(weight: Any, reason: str) -> None:
    with pytest.raises(faults.TensorDimsError, match=reason):
        opened(added(weight))


WRONG = tensor(sides=(2**40,))


@pytest.mark.parametrize(
    "made",
    [
        model(node("Constant", [], ["y"], value=WRONG)),
        model(node("Relu", ["x"], ["y"], many=[WRONG])),
        model(node("If", ["x"], ["y"], then_branch=branch(node("Constant", [], ["y"], value=WRONG)))),
        model(functions=[function("F", node("Constant", [], ["y"], value=WRONG))]),
    ],
    ids=["constant", "list", "subgraph", "function"],
)
def test_tensors_are_found_wherever_they_are(made: Any) -> None:
    with pytest.raises(faults.TensorDataError, match="takes 4398046511104 bytes"):
        opened(made)


def test_a_sparse_tensor_that_would_be_vast_once_dense_is_refused() -> None:
    made = model()
    sparse = made.graph.sparse_initializer.add(dims=[2**20, 2**18])
    sparse.values.CopyFrom(tensor("s", sides=(1,), float_data=[1.0]))
    sparse.indices.CopyFrom(tensor("", TensorProto.INT64, (1,), int64_data=[5]))
    with pytest.raises(
        faults.ValueSizeError, match=r"the sparse tensor 's' of the sides \[1048576, 262144\] takes more"
    ):
        opened(made)


class TestExternalData:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "w.bin").write_bytes(bytes(range(32)))
        (tmp_path / "outside.bin").write_bytes(bytes(32))
        return folder

    def save(self, folder: Path, *places: dict[str, Any]) -> Path:
        weights = []
        for k, place in enumerate(places):
            weights.append(tensor(f"w{k}", data_location=TensorProto.EXTERNAL))
            weights[-1].external_data.extend(
                onnx.StringStringEntryProto(key=key, value=str(text)) for key, text in place.items()
            )
        path = folder / "m.onnx"
        path.write_bytes(model(weights=weights).SerializeToString())
        return path

    @pytest.mark.parametrize("place", [{}, {"offset": 16}, {"offset": 0, "length": 16}, {"checksum": "ab"}])
    def test_data_inside_of_the_folder_pass(self, folder: Path, place: dict[str, Any]) -> None:
        assert open_model(self.save(folder, {"location": "w.bin", **place})).graph.initializer[0].name == "w0"

    def test_two_tensors_may_lie_in_one_file(self, folder: Path) -> None:
        open_model(self.save(folder, {"location": "w.bin"}, {"location": "w.bin", "offset": 16}))

    def test_a_link_inside_of_the_folder_passes(self, folder: Path) -> None:
        (folder / "link.bin").symlink_to("w.bin")
        open_model(self.save(folder, {"location": "link.bin"}))

    @pytest.mark.parametrize(
        "location", ["../outside.bin", "a/../../outside.bin", "..", "C:\\w.bin", "\\w.bin", "..\\w"]
    )
    def test_a_path_that_leaves_the_folder_is_refused(self, folder: Path, location: str) -> None:
        with pytest.raises(
            faults.ExternalPathError, match="m.onnx .*the tensor 'w0' .* outside of the model's folder;"
        ):
            open_model(self.save(folder, {"location": location}))

    def test_an_absolute_path_is_refused_even_inside_of_the_folder(self, folder: Path) -> None:
        with pytest.raises(faults.ExternalPathError, match="outside of the model's folder"):
            open_model(self.save(folder, {"location": folder / "w.bin"}))

    def test_a_link_out_of_the_folder_is_refused(self, folder: Path) -> None:
        (folder / "link.bin").symlink_to(folder.parent / "outside.bin")
        with pytest.raises(faults.ExternalPathError, match="said to lie at 'link.bin', outside of the model's folder"):
            open_model(self.save(folder, {"location": "link.bin"}))

    def test_a_linked_folder_out_of_the_folder_is_refused(self, folder: Path) -> None:
        (folder / "up").symlink_to(folder.parent)
        with pytest.raises(faults.ExternalPathError, match="outside of the model's folder"):
            open_model(self.save(folder, {"location": "up/outside.bin"}))

    @pytest.mark.parametrize(
        ("place", "reason"),
        [
            ({"location": "none.bin"}, "none.bin with the data of the tensor 'w0' cannot be read: No such file"),
            ({"location": "."}, "should hold the data of the tensor 'w0' and is no regular file"),
            ({"location": ""}, "the tensor 'w0' does not say where its external data lie"),
            ({"offset": 3}, "the tensor 'w0' does not say where its external data lie"),
            ({"location": "w\0.bin"}, "the tensor 'w0' does not say where its external data lie"),
            ({"location": "w.bin", "length": 8}, "the tensor 'w0' takes 16 bytes, and its external data have 8"),
            ({"location": "w.bin", "length": 10**15}, "takes 16 bytes, and its external data have 1000000000000000"),
            ({"location": "w.bin", "offset": 17}, "'w0' lies at bytes 17 to 33 of .*w.bin, which has 32"),
            ({"location": "w.bin", "offset": 10**18}, "lies at bytes 1000000000000000000 to .*, which has 32"),
            (
                {"location": "w.bin", "offset": -4},
                "the offset of the external data of the tensor 'w0' is '-4', no number",
            ),
            ({"location": "w.bin", "offset": "\u0661"}, "the offset of the external data .*, no number of bytes"),
            ({"location": "w.bin", "length": "9" * 40}, "the length of the external data .*, no number of bytes"),
        ],
    )
    def test_data_that_are_not_there_are_refused(self, folder: Path, place: dict[str, Any], reason: str) -> None:
        with pytest.raises(faults.ExternalDataError, match=f"m.onnx cannot be opened as an ONNX model: .*{reason}"):
            open_model(self.save(folder, place))

    def test_a_pipe_is_refused_and_not_waited_for(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe.bin")
        with pytest.raises(faults.ExternalDataError, match="is no regular file"):
            open_model(self.save(folder, {"location": "pipe.bin"}))

    def test_tensors_that_claim_the_same_bytes_again_and_again_are_refused(self, folder: Path) -> None:
        with pytest.raises(faults.ExternalDataError, match="its tensors share bytes of .*w.bin, which has only 32"):
            open_model(self.save(folder, *[{"location": "w.bin"}] * 3))

    def test_a_vast_tensor_over_a_short_file_is_refused(self, folder: Path) -> None:
        path = self.save(folder, {"location": "w.bin"})
        made = onnx.load(path, load_external_data=False)
        made.graph.initializer[0].dims[:] = [2**40]
        path.write_bytes(made.SerializeToString())
        with pytest.raises(faults.ExternalDataError, match="lies at bytes 0 to 4398046511104 of .*, which has 32"):
            open_model(path)

    def test_bytes_have_no_folder(self, folder: Path) -> None:
        data = self.save(folder, {"location": "w.bin"}).read_bytes()
        with pytest.raises(faults.ExternalDataError, match="bytes have no folder; give the path of the model"):
            open_model(data)

    def test_constants_have_their_data_inside(self, folder: Path) -> None:
        constant = onnx.load(self.save(folder, {"location": "w.bin"}), load_external_data=False).graph.initializer[0]
        path = folder / "constant.onnx"
        path.write_bytes(model(node("Constant", [], ["y"], value=constant)).SerializeToString())
        with pytest.raises(faults.ExternalDataError, match="which only initialisers of the main graph may"):
            open_model(path)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (
                {"raw_data": bytes(16)},
                "the tensor 'w0' is of strings, or has data of its own, and cannot have external",
            ),
            ({"float_data": [0.0] * 4}, "the tensor 'w0' is of strings, or has data of its own"),
            ({"data_type": TensorProto.STRING}, "the tensor 'w0' is of strings, or has data of its own"),
            ({"data_location": TensorProto.DEFAULT}, "the tensor 'w0' keeps its data in another file, which only"),
            (
                {"data_location": TensorProto.DEFAULT, "raw_data": bytes(16)},
                "keeps its data in another file, which only",
            ),
        ],
    )
    def test_data_of_two_places_are_refused(self, folder: Path, change: dict[str, Any], reason: str) -> None:
        path = self.save(folder, {"location": "w.bin"})
        made = onnx.load(path, load_external_data=False)
        made.graph.initializer[0].MergeFrom(TensorProto(**change))
        path.write_bytes(made.SerializeToString())
        with pytest.raises(faults.ExternalDataError, match=reason):
            open_model(path)

    def test_a_place_named_twice_is_refused(self, folder: Path) -> None:
        path = self.save(folder, {"location": "w.bin"})
        made = onnx.load(path, load_external_data=False)
        made.graph.initializer[0].external_data.add(key="location", value="../outside.bin")
        path.write_bytes(made.SerializeToString())
        with pytest.raises(faults.ExternalDataError, match="names a place of its external data twice"):
            open_model(path)
