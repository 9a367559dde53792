"""What is rearranged has the mask's layout alone; every reading and every way of the RGB image runs."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from zellige.engine.systems.rearranger.config import MapperConfig, RearrangerConfig
from zellige.engine.systems.rearranger.mapper import mapper_of
from zellige.engine.systems.rearranger.rearranging import positions

from .tiny_rearranger import config, networks, styles


@pytest.mark.parametrize("reading", ["A", "B", "C"])
@pytest.mark.parametrize(
    "options",
    [{}, {"tensor": "up"}, {"rgb": "pass"}, {"rgb": "drop"}, {"width": 32, "key_width": 3}, {"key_positions": True}],
    ids=str,
)
def test_features_keep_their_shape_for_hard_and_soft_masks(reading: str, options: dict[str, Any]) -> None:
    made = networks(reading=reading, **options)
    source = made.source(styles(made, 3))
    mask = made.mask(source)
    hard, soft = made.moved(source, mask), made.moved(source, F.one_hot(mask, 5).permute(0, 3, 1, 2).float())
    assert hard.map.shape == source.features.map.shape == (3, 16, 8, 8)
    torch.testing.assert_close(soft.map, hard.map)
    assert (hard.rgb is None) == (options.get("rgb") == "drop")
    assert hard.rgb is None or torch.equal(hard.rgb, source.features.rgb) == (options.get("rgb") == "pass")
    assert made.image(source, hard).shape == (3, 3, 16, 16)


def test_features_that_were_not_moved_give_the_generator_s_image() -> None:
    made = networks()
    given = styles(made, 2)
    torch.testing.assert_close(made.image(made.source(given)), made.generator.synthesise(given))


def test_nothing_passes_attention_at_its_own_place() -> None:
    """Features in another order give the same result, because keys and values have no places."""
    made = networks()
    source = made.source(styles(made, 1))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    features = source.features
    shuffled = [x.flatten(2)[:, :, order].unflatten(2, (8, 8)) for x in (features.map, features.rgb)]
    mask = made.mask(source)
    before = made.moved(source, mask)
    after = made.rearranger(type(features)(*shuffled), mask)
    torch.testing.assert_close(after.map, before.map, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.rgb, before.rgb, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(made.moved(source, mask.roll(2, 1)).map, before.map, atol=1e-2)


def test_positions_are_sines_along_each_axis() -> None:
    made = positions(8, 16)
    assert made.shape == (8, 16, 16)
    assert (made[:4] == made[:4, :, :1]).all() and (made[4:] == made[4:, :1]).all()
    torch.testing.assert_close(made[0, :, 0], torch.arange(16.0).sin())
    torch.testing.assert_close(made[7, 0], (torch.arange(16.0) / 100).cos())


@pytest.mark.parametrize("kind", ["labels", "edges"])
def test_a_mapper_gives_logits_of_masks(kind: str) -> None:
    mapper = MapperConfig(kind=kind, channels=(12, 8), hidden=6, names=("a", "b", "c"),
                          palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)))  # fmt: skip
    made = mapper_of(config(mapper=mapper))
    given = torch.rand(2, 3, 16, 16)
    assert made(given).shape == (2, 5, 8, 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": 32}, "a generator of 16 pixels has no features of 32 pixels"),
        ({"split": 4}, "split at 8 or more"),
        ({"width": 18}, "a multiple of 4"),
        ({"mapper": {"channels": (8, 8, 8, 8, 8)}}, "do not double up to 8 pixels"),
        ({"mapper": {"palette": ((0, 0, 0), (0, 0, 0))}}, "2 classes need as many different colours"),
        ({"mapper": {"palette": ((0, 0, 0), (0, 0, 256))}}, "not of 0 to 255"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**options)


def test_the_paper_s_sizes() -> None:
    assert RearrangerConfig().features == 256 and RearrangerConfig().size == (256, 256)
