"""The tiny models of the engine's tests."""

from ..engine.conftest import model_file, onegan_file
from ..engine.models.tiny_onegan import one_thread

__all__ = ["model_file", "one_thread", "onegan_file"]
