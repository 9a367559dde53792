"""The tiny models of the engine's tests."""

from ..engine.conftest import model, model_file, onegan, onegan_file
from ..engine.systems.onegan.tiny_onegan import one_thread

__all__ = ["model", "model_file", "one_thread", "onegan", "onegan_file"]
