"""A run that is killed and resumed ends with the weights of one that is not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.training.loop import train


def the_same_after_a_kill(recipe: Any, source: type[Any], folder: Path, images: int) -> Path:
    """Run a recipe whole, and once more with a kill after so many images; the model's path.

    Args:
        recipe: its checkpoints come before the kill.
        source: the class of the pictures.
        folder: for both runs.
        images: that are read before the kill.
    """
    whole = train(recipe, source(), folder / "whole", seed=5, workers=0)

    class Killed(source):  # type: ignore[misc]
        seen = 0

        def image(self, index: int) -> Any:
            Killed.seen += 1
            if Killed.seen > images:
                raise KeyboardInterrupt
            return super().image(index)

    with pytest.raises(KeyboardInterrupt):
        train(recipe, Killed(), folder / "parts", seed=5, workers=0)
    parts = train(recipe, source(), folder / "parts", seed=5, resume=True, workers=0)
    tensors = [read_tensors(read_header(Path(report["model"]))) for report in (whole, parts)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    return Path(whole["model"])
