"""The blocks that OneGAN's networks are built from. Source: OneGAN supplementary, table 2."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.batch_invariance import BatchInvariantLinear
from ...layers.convolutions import CodedConv, UpConv
from ...layers.norms import GluLayerNorm, MapNorm
from .config import OneGanConfig

__all__ = [
    "CodedBlock",
    "GluConv",
    "NormedConv",
    "NormedLinear",
    "VectorTable",
    "deep",
    "initialise",
    "norm_settings",
    "trunk",
    "weight_dtype",
]

_SLOPE = 0.2  # of every leaky ReLU


class GluConv(nn.Module):
    """Convolution to twice the channels, then GLU-LNorm. With `step="up"` it is UPBlk.

    Args:
        config: the network's configuration.
        inputs, outputs: channels.
        side: side of the result.
        step: "up" doubles the side before a 3x3 convolution; "down" halves it with a 4x4 convolution of stride 2.
        code: length of a code that joins the features of every pixel; 0 for none.
    """

    def __init__(
        self,
        config: OneGanConfig,
        inputs: int,
        outputs: int,
        side: int,
        step: Literal["same", "up", "down"] = "same",
        code: int = 0,
    ) -> None:
        super().__init__()
        bias = config.bias_before_norm
        self.conv: nn.Conv2d
        if code:
            self.conv = CodedConv(code, inputs, 2 * outputs, bias=bias)
        elif step == "up":
            self.conv = UpConv(inputs, 2 * outputs, "zeros", bias=bias, mode=config.upsampling)
        else:
            kernel, stride = (4, 2) if step == "down" else (3, 1)
            self.conv = nn.Conv2d(inputs, 2 * outputs, kernel, stride, padding=1, bias=bias)
        self.norm = GluLayerNorm(outputs, side, **norm_settings(config))

    def forward(self, x: Tensor, *code: Tensor) -> Tensor:
        """Turn maps [N, inputs, H, W], and codes [N, code] if the block has a code, into [N, outputs, side, side]."""
        y: Tensor = self.norm(self.conv(x, *code))
        return y


class ResidualBlock(nn.Module):
    """RESBlk0: the identity plus two gated convolutions."""

    def __init__(self, config: OneGanConfig, channels: int, side: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(GluConv(config, channels, channels, side) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.blocks(x)
        return y


class CodedBlock(nn.Module):
    """RESBlk: joins a code to the features of every pixel, then runs two residual blocks, then reduces the channels.

    Args:
        config: the generator's configuration.
        inputs: channels of the features.
        code: length of the code.
        outputs: channels of the result.
        side: side of features and result.
    """

    def __init__(self, config: OneGanConfig, inputs: int, code: int, outputs: int, side: int) -> None:
        super().__init__()
        self.join = GluConv(config, inputs, inputs, side, code=code)
        self.blocks = nn.Sequential(*(ResidualBlock(config, inputs, side) for _ in range(2)))
        self.last = GluConv(config, inputs, outputs, side)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Turn maps [N, inputs, S, S] and codes [N, code] into [N, outputs, S, S]."""
        y: Tensor = self.last(self.blocks(self.join(x, code)))
        return y


class NormedConv(nn.Module):
    """Convolution, layer norm, leaky ReLU: 4x4 that halves the side (DOWNBlk) with `down`, else 3x3."""

    def __init__(self, config: OneGanConfig, inputs: int, outputs: int, side: int, *, down: bool = True) -> None:
        super().__init__()
        kernel, stride = (4, 2) if down else (3, 1)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=config.bias_before_norm)
        self.norm = MapNorm(outputs, side, **norm_settings(config))

    def forward(self, x: Tensor) -> Tensor:
        """Turn maps [N, inputs, H, W] into [N, outputs, side, side]."""
        return F.leaky_relu(self.norm(self.conv(x)), _SLOPE)


class NormedLinear(nn.Module):
    """Linear layer, layer norm over the features, leaky ReLU."""

    def __init__(self, config: OneGanConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=config.bias_before_norm)
        self.norm = nn.LayerNorm(outputs, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Turn features [N, inputs] into [N, outputs]."""
        return F.leaky_relu(self.norm(self.linear(x.to(self.linear.weight.dtype))), _SLOPE)


class VectorTable(BatchInvariantLinear):
    """V: one vector for each class; probabilities of classes give the mean of the vectors."""

    def forward(self, classes: Tensor) -> Tensor:
        """Turn classes, [N] int64 or probabilities [N, classes], into vectors [N, length]."""
        # Autocast would round the vectors to bfloat16, and the paper regularises them.
        with torch.autocast(classes.device.type, enabled=False):
            if classes.is_floating_point():
                return super().forward(classes.to(self.weight.dtype))
            vectors = F.embedding(classes, self.weight.t())
            return vectors if self.bias is None else vectors + self.bias


def trunk(config: OneGanConfig, inputs: int, width: int) -> nn.Sequential:
    """The first blocks of the encoders and the object discriminator.

    Args:
        config: the network's configuration.
        inputs: channels of the image.
        width: channels of the first map at 128 pixels.
    Returns:
        a module from [N, inputs, R, R] to [N, 4 width, 16, 16].
    """
    widths = [inputs, *(m * width for m in ((1, 2, 4) if config.full else (2, 4)))]
    sides = (64, 32, 16) if config.full else (32, 16)
    return nn.Sequential(*(NormedConv(config, widths[k], widths[k + 1], side) for k, side in enumerate(sides)))


def deep(config: OneGanConfig, width: int) -> nn.Sequential:
    """The three blocks after a trunk: to [N, 8 width, 8, 8], to [N, 16 width, 4, 4], and to the same shape again."""
    return nn.Sequential(
        NormedConv(config, 4 * width, 8 * width, 8),
        NormedConv(config, 8 * width, 16 * width, 4),
        NormedConv(config, 16 * width, 16 * width, 4, down=False),
    )


def norm_settings(config: OneGanConfig) -> dict[str, Any]:
    """The configuration of norms as arguments of `MapNorm`."""
    by_pixel, by_element = config.norm_axes == "pixel", config.norm_affine == "element"
    return {"by_pixel": by_pixel, "by_element": by_element, "eps": config.norm_eps}


def weight_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of a network's first convolution, trained or rewritten, to which the network casts its input."""
    return next(t.dtype for t in (*module.buffers(), *module.parameters()) if t.dim() == 4)


def initialise(module: nn.Module) -> None:
    """Set orthogonal weights of gain 1 and zero biases, as FineGAN does; the paper does not say."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
