"""A loaded key-patch model: compositions of patches and boxes, completions, batches, files, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.engine.library import load
from zellige.engine.systems.key_patch.boxes import cut_patches
from zellige.engine.systems.key_patch.model import KeyPatch
from zellige.engine.systems.key_patch.parts import PatchSet, key_patches
from zellige.engine.systems.key_patch.selection import narrowed
from zellige.errors import BudgetError, CheckpointError, DataError, DeviceError, ShapeError, TaskError

from .tiny_key_patch import config, networks, picture, written


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("model") / "faces.safetensors")


@pytest.fixture(scope="module")
def model(path: Path) -> KeyPatch:
    return load(path, "cpu", "fp32", rewrite=False)


def patches(count: int, seed: int = 0) -> np.ndarray:
    return np.stack([picture(seed + k) for k in range(count)])


def test_what_is_loaded_computes_what_was_trained(model: KeyPatch) -> None:
    given = patches(3)
    values = torch.from_numpy(given).float().div(127.5).sub(1).permute(0, 3, 1, 2)[None]
    made = networks()(values)
    assert np.abs(model.images([PatchSet(given)])[0] - ((made.image[0] + 1) * 127.5).round().clamp(0, 255)
                  .permute(1, 2, 0).numpy()).max() <= 1  # fmt: skip
    np.testing.assert_allclose(model.masks([PatchSet(given)])[0], made.mask[0, 0], atol=1e-5)


def test_no_norm_is_left_and_the_trained_networks_have_theirs(model: KeyPatch) -> None:
    def norms(network: torch.nn.Module) -> int:
        return sum(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())

    assert norms(model.networks) == 0 and norms(model.trained()) == norms(networks()) > 0


def test_the_order_of_patches_changes_nothing(model: KeyPatch) -> None:
    one, other = model.compose(list(patches(3))), model.compose(list(patches(3)[::-1]))
    assert np.abs(one.image.astype(int) - other.image).max() <= 1
    assert np.abs(one.mask.astype(int) - other.mask).max() <= 1


def test_composite_is_image_times_mask(model: KeyPatch) -> None:
    made = model.compose(list(patches(3)))
    assert made.image.shape == made.composite.shape == (1, 64, 64, 3) and made.mask.shape == (1, 64, 64)
    expected = made.image * (made.mask[..., None] / 255)
    assert np.abs(made.composite - expected).max() <= 1.5


def test_one_patch_counts_as_often_as_in_training(model: KeyPatch) -> None:
    one, thrice = model.compose(list(patches(1))), model.compose([patches(1)[0]] * 3)
    assert np.abs(one.image.astype(int) - thrice.image).max() <= 1


def test_patches_beyond_what_is_encoded_at_once_are_summed(model: KeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    from zellige.engine.systems.key_patch import model as module

    whole = model.compose(list(patches(7))).image
    monkeypatch.setattr(module, "_ENCODED", 2)
    assert np.abs(model.compose(list(patches(7))).image.astype(int) - whole).max() <= 1


def test_boxes_cut_patches_out_of_an_image(model: KeyPatch) -> None:
    cut = cut_patches(picture(), np.array([[8, 8, 20, 20], [30, 30, 18, 24]]))
    boxed = model.compose([picture()], box=["8,8,20,20", "30,30,18,24"])
    np.testing.assert_array_equal(boxed.image, model.compose(list(cut)).image)


def test_boxes_are_in_pixels_of_the_image(model: KeyPatch) -> None:
    large = np.full((128, 160, 3), 255, np.uint8)
    large[:, 16:144] = picture().repeat(2, 0).repeat(2, 1)
    small = model.compose([picture()], box=["8,8,20,20"]).image.astype(int)
    assert np.abs(model.compose([large], box=["32,16,40,40"]).image - small).mean() < 4  # resampled


def test_boxes_come_from_a_file(model: KeyPatch, tmp_path: Path) -> None:
    (tmp_path / "boxes.txt").write_text("8,8,20,20\n\n30,30,18,24\n")
    read = model.compose([picture()], boxes=str(tmp_path / "boxes.txt"))
    np.testing.assert_array_equal(read.image, model.compose([picture()], box=["8,8,20,20", "30,30,18,24"]).image)
    with pytest.raises(ShapeError, match="from --box or from the file of --boxes, and not from both"):
        model.compose([picture()], box=["1,1,9,9"], boxes=str(tmp_path / "boxes.txt"))
    with pytest.raises(DataError, match="cannot be read as a text of boxes"):
        model.compose([picture()], boxes=str(tmp_path / "none.txt"))


def test_each_file_has_its_box(model: KeyPatch) -> None:
    made = model.compose([picture(0), picture(0), picture(1)], box=["8,8,20,20", "30,30,18,24", "4,4,20,20"])
    cut = [cut_patches(picture(k), np.array([box]))[0]
           for k, box in ((0, [8, 8, 20, 20]), (0, [30, 30, 18, 24]), (1, [4, 4, 20, 20]))]  # fmt: skip
    np.testing.assert_array_equal(made.image, model.compose(cut).image)


def test_images_are_completed_one_by_one_as_in_batches(model: KeyPatch) -> None:
    pictures = patches(model.batch + 2)
    whole = model.complete(pictures)
    assert len(whole.row) == len(whole.image) == model.batch + 2
    single = model.complete(pictures[-1:])
    np.testing.assert_array_equal(single.image[0], whole.image[-1])
    np.testing.assert_array_equal(single.mask[0], whole.mask[-1])


def test_sets_of_different_numbers_keep_their_order(model: KeyPatch) -> None:
    sets = [PatchSet(patches(k, seed=k)) for k in (1, 3, 3, 2)]
    whole = model.compose_all(sets)
    for index, one in enumerate(sets):
        np.testing.assert_array_equal(model.compose_all([one]).image[0], whole.image[index])


def test_random_patches_follow_the_seed(model: KeyPatch) -> None:
    one, same, other = (model.complete(patches(1), select="random", seed=seed).image for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_small_patches_cover_less(model: KeyPatch) -> None:
    for area in (0.09, 0.04):
        found = key_patches(picture(), 3, "edges", narrowed(model.config, area), np.random.default_rng(0)).boxes
        assert (found[:, 2] * found[:, 3] <= area * 64 * 64).all()
    assert model.complete(patches(1), area=0.04).image.shape == (1, 64, 64, 3)


def test_noise_is_on_the_last_patch(model: KeyPatch) -> None:
    plain, noisy, again = (model.complete(patches(1), noise=noise).image for noise in (0, 0.5, 0.5))
    assert np.array_equal(noisy, again) and not np.array_equal(plain, noisy)


def test_the_row_shows_the_noise(model: KeyPatch) -> None:
    plain, noise = (model.compose(list(patches(2)), noise=noise).row[0] for noise in (0.0, 0.5))
    side = model.config.resolution
    same = (plain == noise).all((0, 2))
    assert same[:side].all() and not same[side + 8 : 2 * side - 4].all()  # the first patch, then the last one


def test_features_are_the_last_map_of_d(model: KeyPatch) -> None:
    assert model.features(patches(3)).shape == (3, 32 * 16)


def test_files_are_read(model: KeyPatch, tmp_path: Path) -> None:
    for k in range(2):
        Image.fromarray(picture(k)).save(tmp_path / f"{k}.png")
    made = model.compose([tmp_path / "0.png", tmp_path / "1.png"])
    np.testing.assert_array_equal(made.image, model.compose(list(patches(2))).image)


@pytest.mark.parametrize(
    ("given", "box", "said"),
    [
        ([], None, "there is no patch to compose an image of; give a list of one patch or more"),
        ([np.zeros((0, 4, 3), np.uint8)], None, "a patch has no pixel"),
        ([np.zeros((4, 4), np.uint8)], None, r"patches must be uint8 \[h, w, 3\]; got uint8 \[4, 4\]"),
        ([picture()], ["60,0,10,10"], "leaves the image, which has 64 x 64 pixels"),
        ([picture()], ["6,0,0,10"], "has no area"),
        ([picture()], ["6,0,10"], "'6,0,10' is no box; write X,Y,WIDTH,HEIGHT"),
        ([picture(), picture()], ["1,1,9,9"] * 3, "3 boxes do not go with 2 images"),
        ([np.zeros((64, 128, 3), np.uint8)], ["0,0,20,20"], "leaves the image's centre square, which is 32,0,64,64"),
    ],
)
def test_bad_patches_are_a_sentence(model: KeyPatch, given: Any, box: Any, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        model.compose(given, box=box)


def test_an_image_without_edges_offers_random_patches(model: KeyPatch) -> None:
    blank = np.full((1, 64, 64, 3), 200, np.uint8)
    with pytest.raises(DataError, match="the image has no edges.*take random patches, or boxes"):
        model.complete(blank)
    assert model.complete(blank, select="random").image.shape == (1, 64, 64, 3)


def test_more_key_patches_than_there_are_is_a_sentence() -> None:
    apart = config(most_overlap=0.01)
    with pytest.raises(DataError, match=r"an image has \d+ key patches, not 30; ask for fewer, or for random patches"):
        key_patches(picture(), 30, "edges", apart, np.random.default_rng(0))


def test_a_baseline_makes_images_and_no_mask(tmp_path: Path) -> None:
    baseline = load(written(tmp_path / "b.safetensors", wiring="encoder", z_dim=3), "cpu", "fp32", rewrite=False)
    with pytest.raises(TaskError, match="b has no mask decoder, so that it makes no mask; its images alone come from"):
        baseline.compose(list(patches(2)))
    one, other = (baseline.images([PatchSet(patches(2))], seed=seed) for seed in (0, 1))
    assert one.shape == (1, 64, 64, 3) and not np.array_equal(one, other)


def test_other_runtimes_are_refused(path: Path) -> None:
    with pytest.raises(DeviceError, match="export it with `zellige export --task compose`"):
        load(path, "cpu", "fp32", runtime="onnx")


def test_missing_weights_are_refused(path: Path, tmp_path: Path) -> None:
    from zellige.engine.checkpoint.file import read_header, read_tensors, write_checkpoint

    header = read_header(path)
    tensors = {name: t for name, t in read_tensors(header).items() if "image.first" not in name}
    write_checkpoint(tmp_path / "a.safetensors", tensors, system="key-patch", config=header.config)
    with pytest.raises(CheckpointError):
        load(tmp_path / "a.safetensors", "cpu", "fp32")


def test_bfloat16_is_near(path: Path, model: KeyPatch) -> None:
    half = load(path, "cpu", "bf16", rewrite=False)
    assert np.abs(half.complete(patches(2)).image.astype(int) - model.complete(patches(2)).image).mean() < 3


def test_more_patches_than_memory_takes_are_refused(model: KeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    from zellige.engine.systems.key_patch import parts

    monkeypatch.setattr(parts, "available_memory", lambda device: 100_000)
    model.compose(list(patches(4)))
    wanted = "^5 patches of 64 x 64 pixels take .* and .* of memory are free; give at most 4$"
    with pytest.raises(BudgetError, match=wanted):
        model.compose(list(patches(5)))
    with pytest.raises(BudgetError, match=wanted):
        model.compose([picture()], box=["8,8,20,20"] * 5)


def test_images_are_the_same_in_any_parts(model: KeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    from zellige.engine.layers import batch_parts
    from zellige.engine.systems.key_patch import networks as module

    whole = model.complete(patches(5))
    calls = []

    def part_sizes(x: torch.Tensor, *rest: Any, **options: Any) -> list[int]:
        calls.append(len(x))
        return [2] * (len(x) // 2) + [1] * (len(x) % 2)

    assert module.part_sizes is batch_parts.part_sizes
    monkeypatch.setattr(module, "part_sizes", part_sizes)
    split = model.complete(patches(5))
    assert len(calls) == 2  # encoder, decoders
    np.testing.assert_array_equal(split.image, whole.image)
    np.testing.assert_array_equal(split.mask, whole.mask)
