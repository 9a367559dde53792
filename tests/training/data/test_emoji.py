import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zellige.errors import DataError
from zellige.training.data.earth import Split
from zellige.training.data.emoji import _FONT, _NAMES, EMOJI, UNSEEN_EMOJI, EmojiScenes, _hue, _installed
from zellige.training.data.scenes import LabelledImage
from zellige.training.data.sources import open_scenes

SIZE = (64, 64)


def missing() -> str:
    try:
        _installed(_FONT, "fonts-noto-color-emoji")
        _installed(_NAMES, "unicode-data")
    except DataError as error:
        return str(error)
    return ""


installed = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def trained() -> EmojiScenes:
    return EmojiScenes(SIZE)


@pytest.fixture(scope="module")
def scenes(trained: EmojiScenes) -> list[LabelledImage]:
    return [trained.scene(index) for index in range(300)]


def mask(scene: LabelledImage) -> np.ndarray:
    assert scene.mask is not None
    return scene.mask


def extent(scene: LabelledImage) -> tuple[int, int]:
    """Height and width of what is visible."""
    rows, columns = np.nonzero(mask(scene))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@installed
class TestScenes:
    @pytest.mark.parametrize("size", [(64, 64), (128, 128), (48, 96)])
    def test_a_scene_has_its_resolution(self, size: tuple[int, int]) -> None:
        pictures = EmojiScenes(size)
        scene = pictures.scene(0)
        assert scene.image.shape == (*size, 3) and mask(scene).shape == size
        assert pictures.background(0).shape == (*size, 3)
        assert scene.image.dtype == mask(scene).dtype == pictures.background(0).dtype == np.uint8

    @settings(max_examples=20)
    @given(index=st.integers(0, 2**40))
    def test_outside_the_mask_there_is_only_ground(self, trained: EmojiScenes, index: int) -> None:
        scene, ground = trained.scene(index), trained._ground.image(2 * index)
        np.testing.assert_array_equal(scene.image[mask(scene) == 0], ground[mask(scene) == 0])

    def test_the_mask_mixes_emoji_and_ground(self, trained: EmojiScenes, monkeypatch: pytest.MonkeyPatch) -> None:
        # On black the emoji times its mask is left, on white the same plus what the mask lets through.
        scene = trained.scene(5)
        monkeypatch.setattr(trained._ground, "image", lambda index: np.zeros((*SIZE, 3), np.uint8))
        black = trained.scene(5).image.astype(int)
        monkeypatch.setattr(trained._ground, "image", lambda index: np.full((*SIZE, 3), 255, np.uint8))
        white = trained.scene(5).image.astype(int)
        np.testing.assert_allclose(white - black, np.repeat(255 - mask(scene)[..., None].astype(int), 3, 2), atol=1)

    def test_masks_are_antialiased(self, scenes: list[LabelledImage]) -> None:
        for scene in scenes[:50]:
            levels = np.unique(mask(scene))
            assert levels[0] == 0 and levels[-1] == 255 and len(levels) > 20

    def test_the_longer_side_is_half_to_nine_tenths_of_the_frame(self, scenes: list[LabelledImage]) -> None:
        sides = np.array([max(extent(scene)) for scene in scenes]) / SIZE[0]
        assert sides.min() >= 0.5 - 2 / SIZE[0] and sides.max() <= 0.9 + 1 / SIZE[0]
        assert sides.min() < 0.53 and sides.max() > 0.87

    def test_an_emoji_lies_anywhere_inside(self, scenes: list[LabelledImage]) -> None:
        touched = np.mean([mask(scene) > 0 for scene in scenes], axis=0)
        assert touched[SIZE[0] // 2, SIZE[1] // 2] > 0.7
        for edge in (touched[1], touched[-2], touched[:, 1], touched[:, -2]):
            assert edge.max() > 0

    def test_an_index_is_one_scene_at_every_resolution(self, trained: EmojiScenes) -> None:
        large = EmojiScenes((128, 128))
        for index in range(12):
            small, whole = trained.scene(index), large.scene(index)
            assert small.child == whole.child
            halved = np.asarray(Image.fromarray(mask(whole)).reduce(2)).astype(int)
            # Rounding may move a picture by a pixel, of which a rim shows.
            assert np.abs(halved - mask(small)).mean() < 12
            grounds = (large.background(index), trained.background(index))
            assert np.abs(np.subtract(*(ground.mean((0, 1)) for ground in grounds))).max() < 4

    def test_half_of_the_scenes_are_mirrored(self) -> None:
        birds = EmojiScenes(SIZE, emoji=("flamingo",))
        upright = np.asarray(Image.fromarray(birds._cutouts[0][..., 3]).resize((30, 40))).astype(int)
        mirrored = 0
        for index in range(80):
            visible = Image.fromarray(mask(birds.scene(index)))
            found = np.asarray(visible.crop(visible.getbbox()).resize((30, 40))).astype(int)
            distances = np.abs(found - upright).mean(), np.abs(found - upright[:, ::-1]).mean()
            assert min(distances) < 0.5 * max(distances)
            mirrored += distances[1] < distances[0]
        assert 25 < mirrored < 55

    def test_hues_vary_and_greys_do_not(self) -> None:
        hearts = EmojiScenes(SIZE, emoji=("red heart",))
        reds = [scene.image[mask(scene) == 255].mean(0) for scene in map(hearts.scene, range(20))]
        assert np.ptp([red[1] - red[2] for red in reds]) > 20
        np.testing.assert_allclose(np.full(3, 90) @ _hue(0.3).T, np.full(3, 90))

    def test_licences_of_font_and_map_are_named(self, trained: EmojiScenes) -> None:
        assert "SIL Open Font License" in trained.licence and "public domain" in trained.licence


@installed
class TestClasses:
    @pytest.mark.parametrize(("emoji", "each"), [(EMOJI, 5), (UNSEEN_EMOJI, 2)])
    def test_seven_parents_have_as_many_children_each_in_order(self, emoji: tuple[str, ...], each: int) -> None:
        pictures = EmojiScenes(SIZE, emoji=emoji)
        number = len(pictures.children)
        assert pictures.parents == (
            *("face-unwell", "heart", "animal-mammal", "animal-bird"),
            *("plant-flower", "food-fruit", "transport-ground"),
        )
        assert number == 7 * each
        assert pictures.parent_of == tuple(child * 7 // number for child in range(number))

    def test_unseen_emoji_are_not_trained_on(self) -> None:
        assert not set(EMOJI) & set(UNSEEN_EMOJI)
        assert len(set(EMOJI)) == len(EMOJI) and len(set(UNSEEN_EMOJI)) == len(UNSEEN_EMOJI)

    def test_every_child_is_drawn_and_none_twice_as_often_as_it_should(self, trained: EmojiScenes) -> None:
        drawn = [int(np.random.default_rng((0, index, 1)).integers(35)) for index in range(7000)]
        counts = np.bincount(drawn, minlength=35)
        assert ((counts - 200) ** 2 / 200).sum() < 65.2  # chi-square, 34 degrees of freedom, 0.1 %
        assert [trained.scene(index).child for index in range(20)] == drawn[:20]

    def test_the_parent_is_that_of_the_child(self, trained: EmojiScenes, scenes: list[LabelledImage]) -> None:
        for scene in scenes:
            assert scene.child is not None and scene.parent == trained.parent_of[scene.child] == scene.child // 5

    def test_pictures_of_all_children_differ(self, trained: EmojiScenes) -> None:
        pictures = {cutout.tobytes() for cutout in trained._cutouts}
        assert len(pictures) == 35

    def test_a_name_that_unicode_lacks_is_refused(self) -> None:
        with pytest.raises(DataError, match="no emoji of one code point called 'unfolded napkin'; use names as that"):
            EmojiScenes(SIZE, emoji=("red heart", "unfolded napkin"))

    def test_an_emoji_that_the_font_lacks_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copy(_installed(_FONT, ""), tmp_path)
        (tmp_path / _NAMES.name).write_text("# subgroup: none\n10FFFD ; fully-qualified # x E1.0 nothing\n")
        monkeypatch.setenv("ZELLIGE_EMOJI", str(tmp_path))
        with pytest.raises(
            DataError, match="NotoColorEmoji.ttf has no picture of 'nothing'; a newer version may have one"
        ):
            EmojiScenes(SIZE, emoji=("nothing",))


@installed
class TestDraws:
    def test_seed_and_index_fix_scene_and_background(self, trained: EmojiScenes) -> None:
        other = EmojiScenes(SIZE)
        for index in (7, 3, 2**33):
            np.testing.assert_array_equal(other.scene(index).image, trained.scene(index).image)
            np.testing.assert_array_equal(other.background(index), trained.background(index))

    @pytest.mark.parametrize(("seed", "index"), [(0, 1), (1, 0)])
    def test_another_seed_or_index_is_another_scene(self, trained: EmojiScenes, seed: int, index: int) -> None:
        other = EmojiScenes(SIZE, seed=seed)
        assert not np.array_equal(other.scene(index).image, trained.scene(0).image)
        assert not np.array_equal(other.background(index), trained.background(0))

    def test_background_and_ground_of_an_index_are_different_places(self, trained: EmojiScenes) -> None:
        grounds = [trained._ground.image(2 * index) for index in range(40)]
        for index in range(20):
            assert all(not np.array_equal(trained.background(index), ground) for ground in grounds)

    @pytest.mark.parametrize("split", ["train", "held-out"])
    def test_held_out_scenes_lie_in_one_octant_of_the_globe(self, split: Split) -> None:
        ground = EmojiScenes(SIZE, split)._ground
        contacts = np.stack([ground._rotation(index)[0] for index in range(50)])
        assert set((contacts > 0).all(axis=1)) == {split == "held-out"}

    def test_no_background_is_an_ice_sheet(self, trained: EmojiScenes) -> None:
        white = [(trained.background(index).min(axis=-1) > 200).mean() for index in range(100)]
        assert np.max(white) < 0.6

    def test_a_copy_in_another_process_makes_the_same_scenes(self, trained: EmojiScenes) -> None:
        copy = pickle.loads(pickle.dumps(trained))
        np.testing.assert_array_equal(copy.scene(4).image, trained.scene(4).image)


class TestMissing:
    @pytest.mark.parametrize(
        ("there", "what", "package"),
        [
            ([], "emoji-test.txt", "unicode-data"),
            (["emoji-test.txt"], "NotoColorEmoji.ttf", "fonts-noto-color-emoji"),
        ],
    )
    def test_the_error_says_what_to_install(
        self, there: list[str], what: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in there:
            (tmp_path / name).write_text(
                "".join(f"2764 FE0F ; fully-qualified # x E0.6 {emoji}\n" for emoji in EMOJI), encoding="utf-8"
            )
        monkeypatch.setenv("ZELLIGE_EMOJI", str(tmp_path))
        with pytest.raises(DataError) as refused:
            open_scenes("emoji", SIZE)
        assert str(refused.value) == (
            f"the data set 'emoji' needs {what}, which is not in {tmp_path}; install it with: apt-get install "
            f"{package}, or set ZELLIGE_EMOJI to a folder that holds NotoColorEmoji.ttf and emoji-test.txt"
        )

    def test_without_the_variable_debians_places_are_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ZELLIGE_EMOJI", raising=False)
        with pytest.raises(DataError, match="needs nothing.ttf, which is not in /usr/share/fonts/truetype/noto; "):
            _installed(_FONT.with_name("nothing.ttf"), "fonts-noto-color-emoji")
