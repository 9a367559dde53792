"""Every layout is read and written by its rules, and the converted network computes the same pictures and logits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from zellige.engine.checkpoint.foreign.content import Content
from zellige.engine.systems.conversion import Converted, recognised
from zellige.engine.systems.stylegan2.config import StyleGan2Config
from zellige.engine.systems.stylegan2.discriminator import Discriminator
from zellige.engine.systems.stylegan2.generator import Generator
from zellige.engine.systems.stylegan2.layouts import LAYOUTS, theirs

from .foreign_critics import CRITICS
from .foreign_layouts import DEPTH, LENGTH, PROGRAMS, WIDTHS, nvidia_picture
from .textbook import State

every_program = pytest.mark.parametrize("program", PROGRAMS)
BY_NAME = {layout.name: layout for layout in LAYOUTS}
NETWORKS = {  # a generator and its discriminator in a file
    "rosinality": ("g_ema.", "d."),
    "NVIDIA": ("G_ema.", "D."),
    "genforce": ("models.generator_smooth.module.", "models.discriminator.module."),
    "TensorFlow": ("Gs.", "D."),
}
Keys = Callable[[int, int], int]
COUNTS: dict[str, Keys] = {  # of a generator of 2^k pixels, the mean beside rosinality's included
    "rosinality": lambda k, n: 2 * n + 10 + 16 * (k - 2) + 2 * (k - 2) + 1 + 1,
    "NVIDIA": lambda k, n: 13 + 19 * (k - 2) + 2 * n + 1,
    "genforce": lambda k, n: 2 * n + 2 + 6 * (2 * k - 3) + (k - 2) + 4 * (k - 1) + 1,
}


def content(tensors: State, **values: object) -> Content:
    return Content(Path("weights.pt"), "pickle", "0" * 64, tensors, values)  # type: ignore[arg-type]


def converted(tensors: State, samples: int = 64, **values: object) -> Converted:
    return recognised(content(tensors, **values), seed=5, samples=samples)[1]


def networks(made: Converted) -> tuple[Generator, Discriminator]:
    assert isinstance(made.config, StyleGan2Config)
    pair = Generator(made.config), Discriminator(made.config)
    for prefix, network in zip(("generator.", "discriminator."), pair, strict=True):
        state = {name.removeprefix(prefix): t for name, t in made.tensors.items() if name.startswith(prefix)}
        if state:
            network.load_state_dict(state)
    return pair


def latents(count: int) -> Tensor:
    return torch.randn(count, LENGTH, generator=torch.Generator().manual_seed(1))


@every_program
@torch.no_grad()
def test_pictures_are_those_of_the_layout_s_own_rules(program: str) -> None:
    given, z = PROGRAMS[program], latents(3)
    state = given.make(0)
    generator, _ = networks(converted(state))
    wanted = given.picture(state, z)
    assert wanted.std() > 0.5
    assert (generator(z) - wanted).abs().max() <= 1e-4


@every_program
@torch.no_grad()
def test_logits_are_those_of_the_layout_s_own_rules(program: str) -> None:
    mine, other = NETWORKS[program]
    critic = CRITICS[program].make(3)
    file = {mine + key: tensor for key, tensor in PROGRAMS[program].make(0).items()}
    made = converted(file | {other + key: tensor for key, tensor in critic.items()})
    assert made.source["network"] == mine[:-1] and made.source["discriminator"] == other[:-1]
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    images = (
        images * torch.tensor([1.0, 3.0, 9.0, 27.0])[:, None, None, None]
    )  # small D tell images of noise apart badly
    wanted = CRITICS[program].logits(critic, images)
    assert wanted.std() > 0.1
    torch.testing.assert_close(networks(made)[1](images), wanted, atol=1e-4, rtol=1e-4)


@every_program
def test_the_way_back_gives_the_same_state_dict(program: str) -> None:
    layout, generator, critic = BY_NAME[program], PROGRAMS[program].make(0), CRITICS[program].make(3)
    mine, other = NETWORKS[program]
    mean = {"latent_avg": latents(1)[0]} if program == "rosinality" else {}
    file = {mine + key: t for key, t in generator.items()} | {other + key: t for key, t in critic.items()} | mean
    made = converted(file).tensors
    for prefix, rows, wanted in (
        ("generator.", layout.generator(len(WIDTHS), DEPTH), generator | mean),
        ("discriminator.", layout.critic(len(WIDTHS)), critic),
    ):
        network = {name.removeprefix(prefix): t for name, t in made.items() if name.startswith(prefix)}
        back = theirs(rows, network)
        assert back.keys() == wanted.keys() - {"lod"}
        for key, tensor in back.items():
            torch.testing.assert_close(tensor, wanted[key], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("program", COUNTS)
@pytest.mark.parametrize(("pixels", "depth"), [(256, 8), (256, 2), (1024, 8)])
def test_a_layout_has_as_many_keys_as_its_program_writes(program: str, pixels: int, depth: int) -> None:
    level = pixels.bit_length() - 1
    rows = list(BY_NAME[program].generator(level - 1, depth))
    assert len({row.key for row in rows}) == len(rows) == COUNTS[program](level, depth)
    known = {("rosinality", 256, 8): 136, ("NVIDIA", 256, 8): 144, ("NVIDIA", 256, 2): 132, ("genforce", 256, 8): 131}
    assert len(rows) == known.get((program, pixels, depth), len(rows))


@every_program
def test_shapes_alone_make_the_configuration(program: str) -> None:
    config = converted(PROGRAMS[program].make(0)).config
    wanted = StyleGan2Config(
        channels=WIDTHS, z_dim=LENGTH, w_dim=LENGTH, mapping_layers=DEPTH, raw_epsilon=program == "NVIDIA"
    )
    assert config == wanted


def test_z_and_w_may_differ_in_length() -> None:
    state = PROGRAMS["NVIDIA"].make(0)
    state["mapping.fc0.weight"] = torch.randn(LENGTH, 11)
    assert isinstance(config := converted(state).config, StyleGan2Config) and (config.z_dim, config.w_dim) == (
        11,
        LENGTH,
    )


@every_program
def test_the_stored_mean_is_taken(program: str) -> None:
    given = PROGRAMS[program]
    state = given.make(0) | {given.mean: latents(1)[0]}
    made = converted(state)
    assert made.source["w_avg"] == "stored" and torch.equal(made.tensors["generator.w_avg"], state[given.mean])


def test_a_mean_that_is_repeated_for_each_layer_is_taken_once() -> None:
    mean = latents(1)[0]
    made = converted(PROGRAMS["rosinality"].make(0) | {"latent_avg": mean.expand(6, -1)})
    assert torch.equal(made.tensors["generator.w_avg"], mean)


@every_program
@torch.no_grad()
def test_a_missing_mean_is_estimated_and_said(program: str) -> None:
    given = PROGRAMS[program]
    state = given.make(0)
    state.pop(given.mean, None)
    made = converted(state, samples=10_000)
    assert made.source["w_avg"] == "estimated from 10000 latents of seed 5"
    w = networks(made)[0].map(torch.randn(10_000, LENGTH))
    spread = w.std(0) / 100  # of a mean of so many
    assert ((made.tensors["generator.w_avg"] - w.mean(0)).abs() < 6 * spread).all()


@every_program
def test_missing_noises_are_made_from_the_seed_and_said(program: str) -> None:
    state = {key: t for key, t in PROGRAMS[program].make(0).items() if t.shape[-2:] != (16, 16)}
    first, second = converted(state), converted(state)
    assert first.source["noise"] == "2 of 5 maps made from seed 5"
    noise = first.tensors["generator.b16.up.noise"]
    assert noise.shape == (16, 16) and torch.equal(noise, second.tensors["generator.b16.up.noise"])
    assert not torch.equal(noise, recognised(content(state), 6, 64)[1].tensors["generator.b16.up.noise"])


@every_program
def test_filters_may_be_missing(program: str) -> None:
    state = PROGRAMS[program].make(0)
    bare = {key: t for key, t in state.items() if not key.endswith(("kernel", "filter"))}
    assert converted(bare).config == converted(state).config


@torch.no_grad()
def test_nvidia_s_clamp_comes_from_its_modules() -> None:
    state, z = PROGRAMS["NVIDIA"].make(0), latents(2)
    layers = [key.removesuffix(".bias") for key in state if key.startswith("synthesis") and key.endswith("v1.bias")]
    made = converted(
        {f"G_ema.{key}": t for key, t in state.items()},
        **{f"G_ema.{layer}.conv_clamp": 1.5 for layer in layers}, **{"G.synthesis.b4.conv1.conv_clamp": 9},
    )  # fmt: skip
    assert isinstance(made.config, StyleGan2Config) and made.config.clamp == 1.5
    assert (networks(made)[0](z) - nvidia_picture(state, z, 1.5)).abs().max() <= 1e-4


def test_nvidia_s_rate_of_the_mapping_network_comes_from_its_modules() -> None:
    made = converted(
        PROGRAMS["NVIDIA"].make(0),
        **{"mapping.fc0.bias_gain": 0.02, "mapping.fc1.bias_gain": 0.02, "synthesis.b4.conv1.affine.bias_gain": 1},
    )
    assert isinstance(made.config, StyleGan2Config) and made.config.mapping_rate == 0.02


def test_the_averaged_generator_is_preferred() -> None:
    orders = {
        "rosinality": ("g", "g_ema"), "NVIDIA": ("G", "G_ema"), "genforce": ("generator", "generator_smooth"),
        "TensorFlow": ("G", "Gs"),
    }  # fmt: skip
    for program, names in orders.items():
        for order in (names, names[::-1]):
            file = {f"{name}.{key}": t for name in order for key, t in PROGRAMS[program].make(len(name)).items()}
            made = converted(file)
            assert made.source["network"] == names[1] and made.source["discriminator"] == "none in the file"
            wanted = converted(PROGRAMS[program].make(len(names[1]))).tensors
            assert torch.equal(made.tensors["generator.mapping.0.bias"], wanted["generator.mapping.0.bias"])


def test_a_network_by_itself_is_called_plain() -> None:
    assert converted(PROGRAMS["NVIDIA"].make(0)).source["network"] == "plain"


def test_full_names_of_tensorflow_are_known() -> None:
    state = PROGRAMS["TensorFlow"].make(0)
    full = {f"G_{key}" if key.startswith(("mapping", "synthesis")) else key: tensor for key, tensor in state.items()}
    assert converted(full).source["layout"] == "TensorFlow"


def test_a_discriminator_of_other_widths_is_left_out_with_the_reason() -> None:
    file = {f"G_ema.{key}": tensor for key, tensor in PROGRAMS["NVIDIA"].make(0).items()}
    critic = CRITICS["NVIDIA"].make(3) | {"b8.conv0.bias": torch.zeros(9)}
    made = converted(file | {f"D.{key}": tensor for key, tensor in critic.items()})
    said = "left out, because D does not fit: of another shape b8.conv0.bias [9] in place of [5]"
    assert made.source["discriminator"] == said and not any(name.startswith("disc") for name in made.tensors)
