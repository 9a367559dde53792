"""The discriminator of rearranger and mapper in training: its losses, R1 in some updates, and its optimiser."""

import torch
from torch import Tensor

from ....engine.checkpoint.file import Header
from ....engine.systems.stylegan2.config import StyleGan2Config
from ....engine.systems.stylegan2.discriminator import Discriminator
from ....engine.systems.stylegan2.model import read_discriminator
from ....kernels.op.levels import values_of
from ...augment import augmented
from ...losses import logistic
from ..stylegan2.losses import gradient_square
from .recipe import JudgedRecipe

__all__ = ["Judge", "update"]


class Judge:
    """A discriminator that goes on from a generator's own, if its file has one.

    Args:
        header: of the checkpoint that may hold it.
        generator: the configuration of the generator whose images it judges.
        recipe: its settings.
        device: the device that it runs on.
        dtype: of its maps.
        random: the source of what augmentation draws.
    Attributes:
        rate: its learning rate, which shrinks for R1 as in StyleGAN2.
        updates: int64 scalar, the number of updates so far.
    """

    def __init__(
        self, header: Header, generator: StyleGan2Config, recipe: JudgedRecipe, device: torch.device,
        dtype: torch.dtype, random: torch.Generator,
    ) -> None:  # fmt: skip
        found = read_discriminator(header, generator, device)
        self.critic = Discriminator(generator).to(device) if found is None else found
        self.critic.train().requires_grad_(True)
        self.critic.map_dtype = dtype
        self.recipe, self.device, self.random = recipe, device, random
        share = recipe.r1_every / (recipe.r1_every + 1) if recipe.r1 else 1.0
        betas = recipe.betas[0] ** share, recipe.betas[1] ** share
        self.rate = recipe.lr_critic * share
        self.optimiser = torch.optim.Adam(self.critic.parameters(), lr=self.rate, betas=betas, eps=1e-8)
        self.updates = torch.zeros((), dtype=torch.int64)

    def update(self, pixels: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Learn real images, uint8 [N, 3, R, R], and made ones [N, 3, R, R], with R1 once in so many updates."""
        real = values_of(pixels.to(self.device))
        losses = logistic(self.logits(made.detach()), real=False), logistic(self.logits(real), real=True)
        update(self.optimiser, losses[0] + losses[1])
        metrics = {"critic_made": losses[0].detach(), "critic_real": losses[1].detach()}
        if self.recipe.r1 and int(self.updates) % self.recipe.r1_every == 0:
            square = gradient_square(self.critic, augmented(real, self.recipe.augment, self.random))
            update(self.optimiser, square * (self.recipe.r1 / 2 * self.recipe.r1_every))
            metrics["r1"] = square.detach()
        self.updates += 1
        return metrics

    def realism(self, made: Tensor) -> Tensor:
        """L_adv: how far made images are from being taken for real ones."""
        return logistic(self.logits(made), real=True)

    def logits(self, images: Tensor) -> Tensor:
        """Logits [N] of images that are changed at random."""
        logits: Tensor = self.critic(augmented(images, self.recipe.augment, self.random))
        return logits


def update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step of an optimiser; networks that it does not own get no gradients."""
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss, inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()
