from typing import Any

import pytest
from pydantic import ValidationError

from zellige.engine.systems.onegan.config import OneGanConfig

from .tiny_onegan import CHOICES, tiny


def test_sizes_are_the_published_ones() -> None:
    config = OneGanConfig()
    assert (config.resolution, config.children, config.parents, config.backgrounds) == (128, 200, 20, 20)
    assert (config.latent, config.child_vector, config.parent_vector, config.background_vector) == (100, 32, 16, 32)


def test_open_choices_are_the_recommended_ones() -> None:
    choices = {key: value for chosen in CHOICES for key, value in OneGanConfig().model_dump().items() if key in chosen}
    assert choices == {
        "resolution": 128, "norm_axes": "sample", "norm_affine": "channel", "bias_before_norm": False,
        "table_bias": False, "upsampling": "nearest", "bypass": "flat", "background_input": "raw",
        "sigma": "log_variance", "tie_parents": True, "background_classes": "parent",
        "reconstruction_codes": "vectors", "mix": "shared",
    }  # fmt: skip


def test_every_field_says_what_it_is() -> None:
    assert all((field.description or "").endswith(".") for field in OneGanConfig.model_fields.values())


def test_a_background_for_every_child_if_chosen() -> None:
    assert OneGanConfig(background_classes="child").backgrounds == 200


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"resolution": 96}, "resolution must be 64 or 128, not 96"),
        ({"parents": 200}, "parents must be fewer than children, so 200 do not go with 200"),
        ({"children": 20}, "parents must be fewer than children, so 20 do not go with 20"),
        ({"norm_axes": "pixel", "norm_affine": "element"}, "norm_affine='element' does not go with norm_axes='pixel'"),
        ({"children": 1}, "greater than or equal to 2"),
        ({"parents": 0}, "greater than or equal to 1"),
        ({"latent": 0}, "greater than or equal to 1"),
        ({"child_vector": 5000}, "less than or equal to 4096"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"encoder_width": 513}, "less than or equal to 512"),
        ({"critic_width": 0}, "greater than or equal to 1"),
        ({"norm_eps": 0.0}, "greater than 0"),
        ({"bypass": "none"}, "'flat' or 'bottleneck'"),
        ({"background_input": "mask"}, "'raw' or 'masked'"),
        ({"sigma": "exp"}, "'log_variance' or 'softplus'"),
        ({"ndf": 64}, "Extra inputs are not permitted"),
    ],
)
def test_an_impossible_network_is_refused(chosen: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        OneGanConfig(**chosen)


def test_every_setting_survives_json() -> None:
    chosen = {key: value for choice in CHOICES for key, value in choice.items() if key != "norm_axes"}
    config = tiny(**chosen)
    assert OneGanConfig.model_validate_json(config.model_dump_json()) == config
