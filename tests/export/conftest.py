"""The tiny models of the engine's tests, and the bundled ones as files."""

from collections.abc import Callable
from functools import partial

import pytest

from ..engine.conftest import model_file, onegan_file
from ..engine.systems.onegan.tiny_onegan import one_thread
from .bundled import Exported, export_once, folder_of

__all__ = ["bundled", "model_file", "one_thread", "onegan_file"]


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """A bundled model's file of a flavour and a precision; tests that change it copy it."""
    return partial(export_once, folder_of(tmp_path_factory))
