"""bias_noise_act: a bias, noise, leaky ReLU and a gain, in one pass."""

from .op import bias_noise_act

__all__ = ["bias_noise_act"]
