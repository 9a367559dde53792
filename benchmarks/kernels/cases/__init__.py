"""What is measured: for each kernel the shapes that matter, plain PyTorch's way, and the least that any way costs."""

from collections.abc import Callable, Iterator

import torch

from .case import Case
from .coco_gan import affine_relu_cases, feather_blend_cases, phase_epilogue_cases
from .onegan import glu_layer_norm_cases, mask_composite_cases, winograd_conv_cases
from .rearranger import nearest_centroid_cases, rearrange_cases
from .stylegan import bias_noise_act_cases, fir_resample_cases

__all__ = ["KERNELS", "Case", "cases"]

KERNELS: dict[str, Callable[[torch.dtype, torch.device], Iterator[Case]]] = {
    "affine_relu": affine_relu_cases,
    "glu_layer_norm": glu_layer_norm_cases,
    "phase_epilogue": phase_epilogue_cases,
    "rearrange": rearrange_cases,
    "bias_noise_act": bias_noise_act_cases,
    "fir_resample": fir_resample_cases,
    "mask_composite": mask_composite_cases,
    "nearest_centroid": nearest_centroid_cases,
    "feather_blend": feather_blend_cases,
    "winograd_conv": winograd_conv_cases,
}


def cases(kernel: str, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield the cases of a kernel."""
    yield from KERNELS[kernel](dtype, device)
