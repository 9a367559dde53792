import importlib.util
import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest
import torch

if not torch.cuda.is_available():
    # Before any kernel is imported: Triton decides at decoration whether a kernel is compiled or interpreted.
    os.environ.setdefault("TRITON_INTERPRET", "1")

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers are the parallelism; more threads in each would only take turns.
    torch.set_num_threads(1)

if "ZELLIGE_NATIVE" in os.environ:
    # Another build of the C++ kernels, such as that of `make sanitize`.
    spec = importlib.util.spec_from_file_location("zellige.kernels._native", os.environ["ZELLIGE_NATIVE"])
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])

# The same examples on every run, so that a failure repeats; no deadline, because the machine may be busy.
hypothesis.settings.register_profile("zellige", max_examples=50, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("zellige")


@pytest.fixture(scope="session", autouse=True)
def rewrites_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Choices of rewrites go to a folder of this run, and of this worker, and not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZELLIGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("needs_tensorrt") and importlib.util.find_spec("tensorrt") is None:
            item.add_marker(pytest.mark.skip(reason="full TensorRT is not installed: its libraries are on no index"))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):  # not by name: a parameter may be called gpu too
            item.add_marker(pytest.mark.skip(reason="no CUDA device: torch.cuda.is_available() is False"))
