"""What tests that build engines share."""

import importlib.util
import re
from functools import partial
from typing import Any

import pytest

from zellige.engine.runtimes.buckets import BUCKETS
from zellige.engine.tensorrt import build

build_engine = partial(build.build_engine, profile=BUCKETS)

builds = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")


def refused(kind: type[Exception], sentence: str, graph: Any, **options: Any) -> None:
    """Building must end in the sentence, whole."""
    with pytest.raises(kind, match=f"^{re.escape(sentence)}$"):
        build_engine(graph, **options)
