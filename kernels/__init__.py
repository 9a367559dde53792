"""Fused kernels: each folder holds a plain PyTorch reference, Triton and C++ kernels, and the public function."""

try:
    from .affine_relu import affine_relu, affine_relu_rows
    from .bias_noise_act import bias_noise_act
    from .blur_noise_act import blur_noise_act
    from .feather_blend import feather_blend
    from .fir_resample import fir_resample
    from .glu_layer_norm import glu_layer_norm
    from .mask_composite import mask_composite
    from .nearest_centroid import nearest_centroid
    from .op import fork
    from .op.dispatch import Backend, available_backends
    from .op.plain import plain_operators
    from .phase_epilogue import phase_epilogue
    from .rearrange import rearrange
    from .wave_field import wave_field
    from .winograd_conv import winograd_conv, winograd_weight

    fork.register()
except ModuleNotFoundError as error:
    # `launcher` works without torch: it runs kernels that were built ahead of time.
    if error.name != "torch":
        raise

__all__ = [
    "Backend",
    "affine_relu",
    "affine_relu_rows",
    "available_backends",
    "bias_noise_act",
    "blur_noise_act",
    "feather_blend",
    "fir_resample",
    "glu_layer_norm",
    "mask_composite",
    "nearest_centroid",
    "phase_epilogue",
    "plain_operators",
    "rearrange",
    "wave_field",
    "winograd_conv",
    "winograd_weight",
]
