from torch import Tensor

def use_threads(address: int) -> None: ...
def affine_relu(x: Tensor, scale: Tensor, shift: Tensor, y: Tensor, upsample: bool, channels_last: bool) -> None: ...
def affine_relu_rows(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    plus: Tensor | None,
    every: int,
    first: int,
    y: Tensor,
    channels_last: bool,
) -> None: ...
def affine_relu_backward(
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    dx: Tensor,
    dscale: Tensor,
    dshift: Tensor,
    upsample: bool,
    channels_last: bool,
) -> None: ...
def bias_noise_act(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: float,
    factor: Tensor | None,
    slope: float,
    gain: float,
    clamp: float,
    y: Tensor,
    channels_last: bool,
) -> None: ...
def bias_noise_act_backward(
    gradient: Tensor,
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: float,
    slope: float,
    gain: float,
    dx: Tensor,
    dbias: Tensor,
    over_channels: Tensor | None,
    channels_last: bool,
) -> None: ...
def blur_noise_act(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: float,
    factor: Tensor | None,
    slope: float,
    gain: float,
    clamp: float,
    y: Tensor,
) -> None: ...
def feather_blend(
    patches: Tensor, positions: Tensor, window_rows: Tensor, window_columns: Tensor, picture: Tensor
) -> None: ...
def fir_resample(x: Tensor, y: Tensor, up: bool, scale: float, channels_last: bool) -> None: ...
def glu_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, eps: float, channels_last: bool) -> None: ...
def glu_layer_norm_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    dx: Tensor,
    dweight: Tensor,
    dbias: Tensor,
    eps: float,
    channels_last: bool,
) -> None: ...
def mask_composite(
    foreground: Tensor, background: Tensor, mask: Tensor, y: Tensor, logits: bool, channels_last: bool
) -> None: ...
def mask_composite_backward(
    gradient: Tensor,
    foreground: Tensor,
    background: Tensor,
    mask: Tensor,
    d_foreground: Tensor,
    d_background: Tensor,
    d_mask: Tensor,
    logits: bool,
    channels_last: bool,
) -> None: ...
def phase_epilogue(
    x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, gated: bool, eps: float, channels_last: bool
) -> None: ...
def wave_field(
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    y: Tensor,
    every: int,
    first: int,
) -> None: ...
def has_bfloat16_dot() -> bool: ...
def winograd_conv(
    x: list[Tensor],
    u: Tensor,
    style: Tensor | None,
    factor: Tensor | None,
    noise: Tensor | None,
    strength: float,
    bias: Tensor | None,
    y: Tensor,
    kind: int,
    made: int,
    replicate: bool,
    crop: int,
    slope: float,
    gain: float,
    clamp: float,
) -> None: ...
