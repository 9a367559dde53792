"""Faces of the emoji font are drawn at one scale, and no held-out face is trained on in another skin tone."""

import pickle

import numpy as np
import pytest
from PIL import features

from zellige.errors import DataError
from zellige.training.data.emoji import _FONT, _NAMES, _installed
from zellige.training.data.emoji_faces import _VARIANT, EmojiFaces
from zellige.training.data.sources import DATA_SETS, open_pictures


def _missing() -> str:
    try:
        _installed(_FONT, "fonts-noto-color-emoji")
        _installed(_NAMES, "unicode-data")
    except DataError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing() or "installed")


@pytest.fixture(scope="module")
def faces() -> EmojiFaces:
    return EmojiFaces((64, 64))


def test_it_is_a_data_set_by_name(faces: EmojiFaces) -> None:
    opened = open_pictures("emoji-faces", (64, 64), "plane")
    assert "emoji-faces" in DATA_SETS
    np.testing.assert_array_equal(opened.image(3), faces.image(3))


def test_sides_share_no_name_in_any_tone_or_gender(faces: EmojiFaces) -> None:
    trained, held_out = ({_VARIANT.sub("", name) for name in side.names} for side in (faces, faces.on("held-out")))
    assert trained and held_out and not trained & held_out


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow was built without raqm, which shapes sequences")
def test_people_come_in_skin_tones(faces: EmojiFaces) -> None:
    assert len(faces.names) > 900 and len(faces.on("held-out").names) > 90
    assert sum("skin tone" in name for name in faces.names) > 600


def test_a_picture_is_a_drawing_on_white(faces: EmojiFaces) -> None:
    for index in range(10):
        picture = faces.image(index)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert (picture[0, 0] > 250).all() and (picture < 250).any(-1).mean() > 0.15


def test_kinds_are_people_and_faces(faces: EmojiFaces) -> None:
    kinds = [faces.kind(index) for index in range(200)]
    assert set(kinds) == {0, 1}
    assert all(faces.kind(k) for k in range(200) if "skin tone" in faces.names[faces.number(k)])


def test_an_index_is_one_picture_at_every_resolution(faces: EmojiFaces) -> None:
    large = EmojiFaces((128, 128))
    assert [faces.number(k) for k in range(20)] == [large.number(k) for k in range(20)]


def test_a_pickled_side_is_the_same(faces: EmojiFaces) -> None:
    held_out = faces.on("held-out")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(held_out)).image(7), held_out.image(7))


def test_wide_frames_keep_the_shape(faces: EmojiFaces) -> None:
    wide = EmojiFaces((32, 96)).image(0)
    assert wide.shape == (32, 96, 3) and (wide[:, :30] > 250).all()


def test_all_emoji_have_the_faces_among_them_on_the_same_sides(faces: EmojiFaces) -> None:
    everything = open_pictures("emoji-all", (64, 64), "plane")
    assert isinstance(everything, EmojiFaces) and "emoji-all" in DATA_SETS
    assert set(faces.names) < set(everything.names)
    assert set(faces.on("held-out").names) < set(everything.on("held-out").names)
    assert not {_VARIANT.sub("", name) for name in everything.names} & {
        _VARIANT.sub("", name) for name in everything.on("held-out").names
    }
    assert "red apple" in {*everything.names, *everything.on("held-out").names}
    copied = pickle.loads(pickle.dumps(everything))
    np.testing.assert_array_equal(copied.image(5), everything.image(5))
