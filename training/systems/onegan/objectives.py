"""The terms of OneGAN's objectives, and the networks that each term may change.

The names of terms are those of their weights in `OneGanWeights`. Discriminators learn from detached images, so their
terms change no other network. Every other term changes only the networks of its route. Its gradient may reach others,
such as the style encoder through the mask of an image made again, but they stay as they are.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....engine.systems.onegan.networks import BackgroundDiscriminator, Composite, ObjectDiscriminator, OneGanNetworks
from .losses import (
    background_weight,
    embedding_norm,
    gaussian_nll,
    kl_to_standard_normal,
    mask_regularizer,
    real_or_fake,
    weighted_l1,
)
from .recipe import OneGanWeights

__all__ = ["ROUTES", "Terms", "critic_terms", "generation_terms", "learners", "reconstruction_terms"]

# (terms, networks that learn from them): one backward pass each. Terms share a pass if none of them reaches a network
# of the pass that it may not change. D_c's class head learns from `child` too, because its aim is the same.
ROUTES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("adversarial", "background", "auxiliary", "child", "vectors", "mask"),
        ("G_fg", "G_bg0", "G_bg1", "V_c", "V_p", "V_bg", "D_c_B"),
    ),
    (("parent",), ("G_fg", "V_p", "E_p")),
    (
        (
            *("encoded_classes", "encoded_vectors", "divergence", "pixels", "features"),
            *("again_adversarial", "again_background"),
        ),
        ("G_fg", "G_bg0", "G_bg1", "E_c", "E_p", "E_bg"),
    ),
    (("encoded_mask", "again_mask"), ("G_fg", "E_p")),
    (("encoded_background", "background_pixels", "background_features"), ("G_bg1", "E_bg")),
)


def learners(networks: OneGanNetworks, objects: ObjectDiscriminator) -> dict[str, list[nn.Parameter]]:
    """Return the parameters behind the names in ROUTES, none of them twice."""
    background = networks.background
    parts: dict[str, tuple[nn.Module, ...]] = {
        "G_fg": (networks.foreground,),
        "G_bg0": (background.pre_image,),
        "G_bg1": (background.blocks, background.to_image),
        "V_c": (networks.child_vectors,),
        "V_p": (networks.parent_vectors,),
        "V_bg": (networks.background_vectors,),
        "E_c": (networks.child_encoder,),
        "E_p": (networks.parent_encoder,),
        "E_bg": (networks.background_encoder,),
        "D_c_B": (objects.classes,),
    }
    return {name: [p for module in modules for p in module.parameters()] for name, modules in parts.items()}


class Terms:
    """Terms of an objective by name. A term of weight 0 is not computed; one that is added twice is summed."""

    def __init__(self, weights: OneGanWeights) -> None:
        self.weights = weights
        self.values: dict[str, Tensor] = {}

    def add(self, name: str, value: Callable[[], Tensor]) -> None:
        """Add a term, if its weight is not 0."""
        if getattr(self.weights, name):
            found = value()
            self.values[name] = self.values[name] + found if name in self.values else found

    def total(self, names: Sequence[str] | None = None) -> Tensor | None:
        """Return the weighted sum of the named terms, or of all; None if there are none."""
        chosen = [name for name in self.values if names is None or name in names]
        if not chosen:
            return None
        return torch.stack([getattr(self.weights, name) * self.values[name] for name in chosen]).sum()

    def detached(self) -> Iterator[tuple[str, Tensor]]:
        """Return names and values for the log."""
        return ((name, value.detach()) for name, value in self.values.items())


def critic_terms(
    terms: Terms,
    objects: ObjectDiscriminator,
    backgrounds: BackgroundDiscriminator,
    images: Tensor,
    places: Tensor,
    child: Tensor,
    made: Composite,
    again: Sequence[Composite] = (),
) -> None:
    """Add the terms that D_c and D_bg minimise; no gradient leaves the two.

    Args:
        terms: receives the terms.
        objects, backgrounds: D_c and D_bg.
        images, places: real images of objects and real backgrounds, [N, 3, R, R] in [-1, 1].
        child: classes of the images of path G, [N].
        made: composites of path G.
        again: composites of path R, as further fakes.
    """
    n = len(images)
    # One pass judges all images, because no layer mixes samples.
    fakes = [made.image, *(composite.image for composite in again)]
    judged = objects(torch.cat([images, *fakes, made.foreground * made.mask]).detach())
    value, classes = judged.adversarial, judged.auxiliary
    terms.add("critic", lambda: real_or_fake(value[:n], True) + real_or_fake(value[n:-n], False))
    terms.add("critic_child", lambda: F.cross_entropy(classes[-n:], child))
    fakes = [made.background, *(composite.background for composite in again)]
    patches = backgrounds(torch.cat([places, *fakes, images]).detach())
    real, kind = patches.adversarial, patches.auxiliary
    terms.add("critic_background", lambda: real_or_fake(real[:n], True) + real_or_fake(real[n:-n], False))
    terms.add("critic_auxiliary", lambda: real_or_fake(kind[:n], True) + real_or_fake(kind[-n:], False))


def generation_terms(
    terms: Terms,
    networks: OneGanNetworks,
    objects: ObjectDiscriminator,
    backgrounds: BackgroundDiscriminator,
    child: Tensor,
    parent: Tensor,
    made: Composite,
    mask_share: float = 0.5,
) -> None:
    """Add the terms of path G.

    Args:
        terms: receives the terms.
        networks, objects, backgrounds: all networks.
        child, parent: classes, [N].
        made: composites made from the classes.
        mask_share: share of a picture that masks should cover.
    """
    n, codes = len(child), made.codes
    judged = objects(torch.cat([made.image, made.foreground * made.mask]))
    patches = backgrounds(made.background)
    terms.add("adversarial", lambda: real_or_fake(judged.adversarial[:n], True))
    terms.add("background", lambda: real_or_fake(patches.adversarial, True))
    terms.add("auxiliary", lambda: real_or_fake(patches.auxiliary, True))
    terms.add("child", lambda: F.cross_entropy(judged.auxiliary[n:], child))
    terms.add("parent", lambda: F.cross_entropy(networks.parent_encoder(made.image)[0], parent))
    terms.add("vectors", lambda: embedding_norm(codes.parent, codes.child, codes.background))
    terms.add("mask", lambda: mask_regularizer(made.mask, mask_share))


def reconstruction_terms(
    terms: Terms,
    objects: ObjectDiscriminator,
    backgrounds: BackgroundDiscriminator,
    images: Tensor,
    again: Composite,
    truth: tuple[Tensor, Tensor, Composite] | None,
    mask_share: float = 0.5,
) -> None:
    """Add the terms of path R.

    Args:
        terms: receives the terms.
        objects, backgrounds: D_c and D_bg, which the terms do not change.
        images: [N, 3, R, R] in [-1, 1], without gradient.
        again: composites made from the images.
        truth: child and parent classes [N], and the composite of path G that the images are from; None for real images.
        mask_share: share of a picture that masks should cover.
    """
    encoding = again.encoding
    assert encoding is not None
    distributions = (encoding.child, encoding.parent, encoding.latent)
    terms.add(
        "divergence",
        lambda: torch.stack([kl_to_standard_normal(d.mean, d.log_variance) for d in distributions]).sum(),
    )
    terms.add("pixels", lambda: F.l1_loss(again.image, images))
    weights = terms.weights
    if weights.features or (truth is None and weights.again_adversarial):
        judged = objects(again.image)
        terms.add("features", lambda: F.l1_loss(judged.features.float(), _features(objects, images)))
        if truth is None:
            terms.add("again_adversarial", lambda: real_or_fake(judged.adversarial, True))
    if truth is not None:
        child, parent, made = truth
        codes = (made.codes.child, made.codes.parent, made.codes.latent)
        terms.add(
            "encoded_classes",
            lambda: F.cross_entropy(encoding.child_logits, child) + F.cross_entropy(encoding.parent_logits, parent),
        )
        terms.add(
            "encoded_vectors",
            lambda: torch.stack(
                [
                    gaussian_nll(code.detach(), d.mean, d.log_variance)
                    for code, d in zip(codes, distributions, strict=True)
                ]
            ).sum(),
        )
        terms.add("encoded_mask", lambda: F.l1_loss(again.mask, made.mask.detach()))
        terms.add("encoded_background", lambda: F.l1_loss(again.background, made.background.detach()))
        return
    weight = background_weight(again.mask.detach())
    terms.add("background_pixels", lambda: weighted_l1(images, again.background, weight))
    terms.add("again_mask", lambda: mask_regularizer(again.mask, mask_share))
    if weights.background_features or weights.again_background:
        patches = backgrounds(again.background)
        terms.add("again_background", lambda: real_or_fake(patches.adversarial, True))
        terms.add("background_features", lambda: _weighted_features(backgrounds, images, patches.features, weight))


def _features(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Return a discriminator's features of images, without gradient."""
    with torch.no_grad():
        features: Tensor = discriminator(images).features
        return features.float()


def _weighted_features(
    backgrounds: BackgroundDiscriminator, images: Tensor, features: Tensor, weight: Tensor
) -> Tensor:
    """Return the L1 of D_bg's features of the background; a feature's weight is that of the pixels around it."""
    at_features = F.interpolate(weight, size=features.shape[2:], mode="area")
    return weighted_l1(_features(backgrounds, images), features.float(), at_features)
