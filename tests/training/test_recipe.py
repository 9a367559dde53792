"""Recipes say what the paper's table says, and refuse what no run can be."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.critic import Discriminator, Head
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.errors import LatticeError, UnknownRecipeError
from zellige.training.data.sources import DATA_SETS
from zellige.training.recipe import with_settings
from zellige.training.systems import RECIPES, find_recipe
from zellige.training.systems.coco_gan import recipes as coco_gan
from zellige.training.systems.coco_gan.recipe import CocoGanRecipe
from zellige.training.systems.onegan.recipe import OneGanRecipe

# Height and width, K, P, batch, blocks at full size, macro positions, consistency, content, beyond.
PUBLISHED = {
    "celeba-64": ((64, 64), 32, 16, 64, 0, 9, 100, 0, 0),
    "celeba-128": ((128, 128), 64, 32, 128, 0, 9, 100, 0, 0),
    "celeba-128-guided": ((128, 128), 64, 32, 128, 0, 9, 100, 100, 0),
    "celeba-128-n4": ((128, 128), 64, 16, 128, 0, 25, 100, 0, 0),
    "celeba-128-n8": ((128, 128), 64, 8, 128, 1, 81, 100, 0, 0),
    "celeba-128-n16": ((128, 128), 64, 4, 64, 3, 289, 100, 0, 0),
    "celeba-hq-1024": ((1024, 1024), 512, 256, 20, 0, 9, 100, 0, 0),
    "lsun-64": ((64, 64), 32, 16, 128, 0, 9, 100, 0, 0),
    "lsun-256": ((256, 256), 128, 64, 128, 0, 9, 100, 0, 0),
    "lsun-256-beyond": ((256, 256), 128, 64, 128, 0, 9, 10_000, 0, 1),
    "matterport-256x768": ((256, 768), 128, 64, 128, 0, 36, 100, 0, 0),
}

# Children, parents, images.
PUBLISHED_ONEGAN = {
    "onegan-cub": (200, 20, 11_788),
    "onegan-dogs": (120, 12, 20_580),
    "onegan-cars": (196, 20, 16_185),
}


@pytest.mark.parametrize("name", PUBLISHED_ONEGAN)
def test_onegan_has_the_papers_networks_and_finegans_length(name):
    recipe = find_recipe(name)
    model, (children, parents, images) = recipe.model, PUBLISHED_ONEGAN[name]
    assert (model.children, model.parents, model.resolution, model.latent) == (children, parents, 128, 100)
    assert (model.width, model.encoder_width, model.critic_width) == (16, 64, 64)
    assert recipe.weights == OneGanRecipe().weights
    assert (recipe.batch, recipe.ema, recipe.betas) == (16, 0.999, (0.5, 0.999))
    epochs = (recipe.steps * recipe.hard_from) * 16 / images
    assert epochs == pytest.approx(600, abs=1) and recipe.steps * (1 - recipe.hard_from) == pytest.approx(1500)


def test_emoji_have_the_classes_of_their_data_set():
    from zellige.training.data.emoji import EMOJI

    model = find_recipe("emoji").model
    assert (model.children, model.parents, model.resolution) == (len(EMOJI), 7, 64)


@pytest.mark.parametrize("phases", [[0.5, 0.4], [-0.1, 0.4], [0.2, 1.1]])
def test_phases_must_be_shares_in_their_order(phases):
    with pytest.raises(UnknownRecipeError, match="^phases must be two shares of the run in their order, so"):
        with_settings(OneGanRecipe(), {"phases": phases})


def test_weights_are_settings_too():
    assert with_settings(OneGanRecipe(), {"weights.mask": 0.5}).weights.mask == 0.5
    with pytest.raises(UnknownRecipeError, match=r"no setting 'weights\.maks'; it has .*weights\.mask"):
        with_settings(OneGanRecipe(), {"weights.maks": 1})


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe_has_the_published_sizes(name):
    recipe = find_recipe(name)
    model = recipe.model
    found = (model.size, model.macro, model.patch, recipe.batch, model.extra_blocks,
             len(model.lattice.macro_cells()), recipe.consistency, recipe.content, recipe.beyond)  # fmt: skip
    assert found == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe_has_what_all_share(name):
    recipe, model = find_recipe(name), find_recipe(name).model
    assert (model.channels, model.latent, model.width, model.critic_width, model.head_width) == (3, 128, 64, 64, 128)
    assert (recipe.lr_generator, recipe.lr_critic, recipe.lr_latent, recipe.betas) == (1e-4, 4e-4, 1e-4, (0.0, 0.999))
    assert (recipe.loss, recipe.penalty, recipe.sampling, recipe.decay_from) == ("wasserstein", 10, "lattice", 1.0)
    assert (recipe.diversity, recipe.consistency_axes) == (0, "all")
    assert (model.padding, model.dense, model.condition_std, model.condition_scale) == ("zeros", False, None, 0)
    assert not model.reference_quirks


def test_only_the_panorama_is_cyclic_and_only_the_guided_one_has_head_q():
    topologies = {name: find_recipe(name).model.topology for name in PUBLISHED}
    assert {name for name, topology in topologies.items() if topology != "plane"} == {"matterport-256x768"}
    assert topologies["matterport-256x768"] == "cylinder"
    assert {name for name in PUBLISHED if find_recipe(name).model.latent_head} == {"celeba-128-guided"}


def test_quirks_are_the_only_difference_to_the_paper():
    assert find_recipe("celeba-64-quirks") == with_settings(find_recipe("celeba-64"), {"model.reference_quirks": True})


def test_every_published_configuration_is_there():
    ours = {"celeba-64-quirks", "planet", "terrain", "emoji"}
    systems = ("coco-gan", "onegan")  # others hold their recipes to their papers beside their own tests
    found = {name for name, recipe in RECIPES.items() if recipe.system in systems}
    assert found == PUBLISHED.keys() | PUBLISHED_ONEGAN.keys() | ours


@pytest.mark.parametrize("name", coco_gan.RECIPES)
def test_networks_of_every_recipe_fit_together(name):
    config = find_recipe(name).model
    with torch.device("meta"):
        generator, critic = Generator(config, spectral=False), Discriminator(config, spectral=False)
        head = Head(critic.features, config.lattice.dimensions, config.head_width, spectral=False)
    with FakeTensorMode(allow_non_fake_inputs=True):  # shapes without numbers, on a device that autocast knows
        for network in (generator, critic, head):
            network.to_empty(device="cpu")
        patch = generator(torch.empty(2, config.latent), torch.empty(2, config.lattice.dimensions))
        macro = torch.empty(2, config.channels, config.macro, config.macro)
        value, feature = critic(macro, torch.empty(2, config.lattice.dimensions))
        place = head(feature)
    assert patch.shape == (2, config.channels, config.patch, config.patch)
    assert value.shape == (2,) and place.shape == (2, config.lattice.dimensions)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_valid_as_it_is_stored(name):
    recipe = find_recipe(name)
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(
        UnknownRecipeError, match="there is no recipe 'celeba'; recipes: celeba-128, celeba-128-guided, "
    ):
        find_recipe("celeba")


def test_settings_replace_fields_and_leave_the_rest():
    recipe = with_settings(find_recipe("planet"), {"model.width": 8, "steps": 10, "betas": [0.5, 0.9]})
    assert (recipe.model.width, recipe.steps, recipe.betas) == (8, 10, (0.5, 0.9))
    assert recipe.model.columns == find_recipe("planet").model.columns
    assert find_recipe("planet").steps != 10


@pytest.mark.parametrize("key", ["widht", "model.widht", "modle.width", "steps.more", "model.width.more", ""])
def test_unknown_setting_lists_the_known_ones(key):
    with pytest.raises(
        UnknownRecipeError, match=rf"^the recipe has no setting '{key}'; it has .*batch, .*model\.width"
    ):
        with_settings(CocoGanRecipe(), {key: 1})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "the setting steps cannot be 0: Input should be greater than or equal to 1"),
        ({"steps": "many"}, "the setting steps cannot be 'many': Input should be a valid integer"),
        ({"batch": 3}, "the setting batch cannot be 3: Input should be a multiple of 2"),
        ({"penalty": -1}, "the setting penalty cannot be -1: Input should be greater than or equal to 0"),
        ({"loss": "bce"}, "the setting loss cannot be 'bce': Input should be 'wasserstein' or 'hinge'"),
        ({"model.width": 0}, r"the setting model\.width cannot be 0: Input should be greater than or equal to 1"),
        ({"model.topology": "ball"}, r"the setting model\.topology cannot be 'ball': Input should be 'plane', "),
        ({"model": 5}, "the setting model cannot be 5: Input should be"),
    ],
)
def test_value_that_a_setting_does_not_take_is_named(settings, sentence):
    with pytest.raises(UnknownRecipeError, match=f"^{sentence}"):
        with_settings(CocoGanRecipe(), settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model.patch": 24}, "patch must be a power of two from 4 to 256, not 24"),
        ({"batch": 6, "accumulate": 2}, "a batch of 6 does not split into 2 parts of whole pairs; .* a multiple of 4"),
        ({"batch": 4, "accumulate": 4}, "a batch of 4 does not split into 4 parts of whole pairs; .* a multiple of 8"),
        ({"content": 100}, "content weighs the error of head Q, which the model lacks; set model.latent_head too"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(UnknownRecipeError, match=f"^{sentence}$"):
        with_settings(CocoGanRecipe(), settings)


def test_impossible_lattice_is_refused_with_its_own_sentence():
    with pytest.raises(LatticeError, match="an open axis with span 2 needs at least 3 micro patches, not 2"):
        with_settings(CocoGanRecipe(), {"model.rows": 2})


def test_defaults_are_the_papers():
    assert CocoGanRecipe(model=CocoGanConfig(patch=32)) == find_recipe("celeba-128")


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("name", ["planet", "emoji"])
@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"betas": [0, 2]}, r"betas\.1 cannot be 2"),
        ({"betas": [-0.1, 0.5]}, r"betas\.0 cannot be -0\.1"),
        ({"betas": [NAN, 0.5]}, r"betas\.0 cannot be nan"),
        ({"lr_critic": 1e308}, r"lr_critic cannot be 1e\+308"),
        ({"lr_generator": 0}, "lr_generator cannot be 0"),
        ({"lr_generator": NAN}, "lr_generator cannot be nan"),
        ({"decay_from": NAN}, "decay_from cannot be nan"),
        ({"ema": INFINITE}, "ema cannot be inf"),
        ({"steps": 10**30}, "steps cannot be 10+"),
        ({"steps": INFINITE}, "steps cannot be inf"),
        ({"batch": 10**9}, "batch cannot be 10+"),
        ({"log_every": 10**10}, "log_every cannot be 10+"),
    ],
)
def test_bounds_belong_to_the_recipe(name, settings, setting):
    with pytest.raises(UnknownRecipeError, match=f"^the setting {setting}: "):
        with_settings(find_recipe(name), settings)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("planet", "consistency"), ("planet", "diversity_target"), ("planet", "model.condition_scale"),
        ("planet", "model.condition_std"), ("emoji", "weights.mask"), ("emoji", "mask_share"), ("emoji", "phases"),
        ("emoji", "model.norm_eps"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [NAN, INFINITE])
def test_every_number_is_finite(name, key, value):
    given = [0.1, value] if key == "phases" else value
    with pytest.raises(UnknownRecipeError, match="cannot be .*(nan|inf)|so 0.1 and (nan|inf) are none"):
        with_settings(find_recipe(name), {key: given})


def test_values_nested_deeply_are_refused_in_a_short_sentence():
    value: list = []
    for _ in range(5_000):
        value = [value]
    for key in ("steps", "betas", "model", "model.width"):
        with pytest.raises(UnknownRecipeError, match=f"the setting {key}.* cannot be ") as error:
            with_settings(find_recipe("planet"), {key: value})
        assert len(str(error.value)) < 300


def test_a_folder_is_recorded_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_settings(find_recipe("celeba-64"), {"data": "a/../pictures/"}).data == str(tmp_path / "pictures")
    assert with_settings(find_recipe("celeba-64"), {"data": "./earth"}).data == str(tmp_path / "earth")


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_recorded_by_its_name(name):
    assert with_settings(find_recipe("celeba-64"), {"data": name}).data == name


def test_a_torus_has_nothing_beyond_its_boundary():
    with pytest.raises(UnknownRecipeError, match="a torus has no boundary, so that nothing lies beyond"):
        with_settings(find_recipe("terrain"), {"beyond": 1})
