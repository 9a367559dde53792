"""Edges are white where brightness changes, and lines are white on any paper."""

import torch

from zellige.engine.systems.rearranger.conditions import edges_of, lines_of, one_hot


def test_edges_are_where_brightness_changes() -> None:
    image = torch.full((1, 3, 8, 8), -1.0)
    image[:, :, :, 4:] = 1.0
    edges = edges_of(image)
    assert edges.shape == image.shape and (edges[:, :, :, 3:5] == 1).all()
    assert (edges[:, :, :, :3] == -1).all() and (edges[:, :, :, 5:] == -1).all()
    assert torch.equal(edges_of(image.mT), edges.mT)
    assert (edges_of(torch.full((1, 3, 4, 4), 0.7)) == -1).all()


def test_lines_are_white_on_any_paper() -> None:
    ink = torch.full((2, 3, 8, 8), -1.0)
    ink[0, :, 2] = 1.0
    ink[1] = -ink[0]
    lines = lines_of(ink)
    assert torch.equal(lines[0], ink[0]) and torch.equal(lines[1], lines[0])


def test_classes_are_channels() -> None:
    made = one_hot(torch.tensor([[[0, 2]]]), 3)
    assert made.shape == (1, 3, 1, 2) and made[0, :, 0, 1].tolist() == [0, 0, 1]
