"""Centroids are found again by their seed, and masks are read as they are painted."""

import numpy as np
import pytest
import torch

from zellige.engine.systems.rearranger.given import Given, as_given, labels_of_picture
from zellige.engine.systems.rearranger.masks import colours, fit_centroids, labels_of, mean_iou
from zellige.errors import DataError, ShapeError

from .tiny_rearranger import config


def blobs(metric: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps [4, 6, 8, 8] around five directions or places, and the group of each pixel."""
    random = torch.Generator().manual_seed(0)
    centres = torch.linalg.qr(torch.randn(6, 6, generator=random))[0][:5] * 3
    groups = torch.randint(5, (4, 8, 8), generator=random)
    maps = centres[groups] + 0.1 * torch.randn(4, 8, 8, 6, generator=random)
    if metric == "cosine":  # lengths tell nothing
        maps = maps * torch.rand(4, 8, 8, 1, generator=random).add(0.2)
    return maps.permute(0, 3, 1, 2), groups


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_groups_are_found(metric: str) -> None:
    maps, groups = blobs(metric)
    centroids = fit_centroids(maps.split(1), config(metric=metric), seed=1)
    labels = labels_of(maps, centroids, metric)
    pairs = set(zip(labels.flatten().tolist(), groups.flatten().tolist(), strict=True))
    assert len(pairs) == 5
    assert metric == "euclidean" or torch.allclose(centroids.norm(dim=1), torch.ones(5))


def test_centroids_depend_on_the_seed_and_not_on_the_chunks() -> None:
    maps, _ = blobs("cosine")
    whole, parts = (fit_centroids(maps.split(size), config()) for size in (4, 1))
    assert torch.equal(whole, parts)
    with pytest.raises(ShapeError, match="4 features cannot make 5 clusters"):
        fit_centroids([torch.randn(1, 6, 2, 2)], config())


def test_mean_iou_is_over_labels_that_there_are() -> None:
    mask = torch.tensor([[[0, 0], [1, 1]]])
    assert mean_iou(mask, mask, 5) == 1
    assert mean_iou(torch.tensor([[[0, 1], [1, 1]]]), mask, 5) == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (31, 17), (5, 3)])
def test_a_painted_mask_is_read_in_any_size(size: tuple[int, int]) -> None:
    labels = np.zeros(size, int)
    labels[size[0] // 2 :] = 3
    read = labels_of_picture(Given("painted", picture=colours(5)[labels]), config())
    assert read.shape == (8, 8) and set(read[0]) == {0} and set(read[-1]) == {3}
    exact = np.arange(64).reshape(8, 8) % 5
    assert np.array_equal(labels_of_picture(Given("p", picture=colours(5)[exact]), config()), exact)


def test_an_unknown_colour_is_named_with_the_palette() -> None:
    painted = colours(5)[np.zeros((8, 8), int)]
    painted[2, 3] = (1, 2, 3)
    first = "#" + bytes(colours(5)[0]).hex()
    with pytest.raises(
        DataError, match=rf"has the colour #010203, which is no label's; the labels' colours are {first}"
    ):
        labels_of_picture(Given("mask.png", picture=painted), config())


def test_colours_are_all_different() -> None:
    assert len({bytes(colour) for colour in colours(256)}) == 256


def test_what_a_task_is_given() -> None:
    assert [one.seed for one in as_given("features", ["seed:7", "seed:7:2"])] == [(7, 0), (7, 2)]
    assert as_given("features", "seed:3")[0].seed == (3, 0)
    pixels = np.zeros((2, 4, 5, 3), np.uint8)
    assert len(as_given("features", pixels)) == 2 and as_given("features", pixels[0])[0].picture.shape == (4, 5, 3)
    for wrong in ("seed:", "seed:-1", "seed:1:2:3", "seed:x"):
        with pytest.raises(DataError, match="write seed:7"):
            as_given("features", [wrong])
    with pytest.raises(ShapeError, match="there are no features"):
        as_given("features", [])
    with pytest.raises(ShapeError, match=r"mask 1 must be uint8 \[H, W, 3\]"):
        as_given("mask", ["seed:1", np.zeros((4, 4, 3))])
