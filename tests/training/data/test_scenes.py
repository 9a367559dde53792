from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from zellige.errors import DataError, EmptyDataError
from zellige.training.data.scenes import FolderScenes
from zellige.training.data.sources import open_scenes
from zellige.training.data.stream import stream
from zellige.training.systems.onegan.items import SceneItems

from ..sides import fill

SIZE = (8, 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eighteen objects and backgrounds to train on and two of each held out.

    Green says which picture it is, red which side is left, and blue is 255 on backgrounds.
    """
    for place, blue in [("objects", 0), ("backgrounds", 255)]:

        def picture(k: int, blue: int = blue) -> np.ndarray:
            pixels = np.full((*SIZE, 3), (0, k, blue), np.uint8)
            pixels[:, : SIZE[1] // 2, 0] = 255
            return pixels

        fill(tmp_path / place, picture, 20, {0, 10})
    return tmp_path


class TestFolders:
    def test_scenes_are_objects_and_backgrounds_are_backgrounds(self, folder: Path) -> None:
        scenes = open_scenes(str(folder), SIZE)
        for index in range(20):
            assert not scenes.scene(index).image[..., 2].any()
            assert (scenes.background(index)[..., 2] == 255).all()

    def test_nobody_knows_masks_or_classes(self, folder: Path) -> None:
        scenes = FolderScenes(folder, SIZE)
        scene = scenes.scene(0)
        assert scene.mask is None and scene.child is None and scene.parent is None
        assert scenes.children == scenes.parents == ()

    def test_every_picture_of_the_split_is_drawn_and_no_other(self, folder: Path) -> None:
        train = FolderScenes(folder, SIZE)
        kept = train.on("held-out")
        for drawn in (
            lambda scenes, index: scenes.scene(index).image[0, 0, 1],
            lambda scenes, index: scenes.background(index)[0, 0, 1],
        ):
            assert {int(drawn(train, index)) for index in range(400)} == set(range(20)) - {0, 10}
            assert {int(drawn(kept, index)) for index in range(50)} == {0, 10}

    def test_half_of_the_pictures_are_mirrored(self, folder: Path) -> None:
        scenes = FolderScenes(folder, SIZE)
        mirrored = [scenes.scene(index).image[0, -1, 0] == 255 for index in range(200)]
        assert 70 < sum(mirrored) < 130

    def test_object_and_background_are_drawn_apart(self, folder: Path) -> None:
        scenes = FolderScenes(folder, SIZE)
        same = [scenes.scene(index).image[0, 0, 1] == scenes.background(index)[0, 0, 1] for index in range(200)]
        assert sum(same) < 30

    def test_seed_and_index_fix_the_draw(self, folder: Path) -> None:
        one, other = FolderScenes(folder, SIZE, seed=3), FolderScenes(folder, SIZE, seed=3)
        for index in (5, 1, 2**40):
            np.testing.assert_array_equal(one.scene(index).image, other.scene(index).image)
            np.testing.assert_array_equal(one.background(index), other.background(index))

    @pytest.mark.parametrize("missing", ["objects", "backgrounds"])
    def test_a_missing_folder_is_named(self, tmp_path: Path, missing: str) -> None:
        (tmp_path / ("backgrounds" if missing == "objects" else "objects")).mkdir()
        with pytest.raises(DataError, match=f"has no folder {missing}; put pictures of objects into .*/objects and"):
            open_scenes(str(tmp_path), SIZE)

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        for place in ("objects", "backgrounds"):
            (tmp_path / place).mkdir()
        with pytest.raises(EmptyDataError, match="objects holds no readable image"):
            FolderScenes(tmp_path, SIZE)


def batches(folder: Path, workers: int, first: int = 0, count: int = 3) -> list[tuple[Tensor, Tensor]]:
    items = SceneItems(FolderScenes(folder, SIZE))
    loader: Iterator[tuple[Tensor, Tensor]] = stream(items, first=first, batch=5, workers=workers)
    return list(islice(loader, count))


class TestItems:
    def test_an_item_is_a_scene_and_a_background_of_its_index(self, folder: Path) -> None:
        scenes = FolderScenes(folder, SIZE)
        for index, (image, background) in enumerate(islice(iter(SceneItems(scenes)), 10)):
            np.testing.assert_array_equal(image.permute(1, 2, 0), scenes.scene(index).image)
            np.testing.assert_array_equal(background.permute(1, 2, 0), scenes.background(index))
            assert image.dtype == background.dtype == torch.uint8

    def test_an_item_may_be_written_to(self, folder: Path) -> None:
        items = SceneItems(FolderScenes(folder, SIZE))
        before = items[0][0].clone()
        items[0][0].zero_()
        assert torch.equal(items[0][0], before)

    def test_workers_change_nothing(self, folder: Path) -> None:
        for one, other in zip(batches(folder, 0), batches(folder, 1), strict=True):
            assert all(map(torch.equal, one, other))

    def test_a_stream_that_starts_further_on_goes_on_alike(self, folder: Path) -> None:
        for one, other in zip(batches(folder, 0, count=4)[2:], batches(folder, 0, first=10, count=2), strict=True):
            assert all(map(torch.equal, one, other))

    def test_another_seed_gives_other_scenes_of_the_same_source(self, folder: Path) -> None:
        scenes = FolderScenes(folder, SIZE)
        first, other = SceneItems(scenes), SceneItems(scenes, 1_000_003)
        assert any(not torch.equal(first[k][0], other[k][0]) for k in range(10))
        assert torch.equal(other[3][0], torch.tensor(scenes.scene((1_000_003 << 40) + 3).image).permute(2, 0, 1))
