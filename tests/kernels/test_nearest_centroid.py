import pytest
import torch
from torch import Tensor

from zellige.kernels import nearest_centroid

from .judge import assert_nearest
from .textbook import distances

BACKENDS = ["reference", "triton"]
METRICS = ["euclidean", "cosine"]
backends = pytest.mark.parametrize("backend", BACKENDS)
metrics = pytest.mark.parametrize("metric", METRICS)


def arguments(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    m, k, d = shape
    return torch.randn(m, d, generator=random).to(dtype), torch.randn(k, d, generator=random).to(dtype)


@metrics
def test_float64_gives_the_definitions_indices(metric):
    points, centroids = arguments((300, 40, 9), torch.float64)
    assert torch.equal(nearest_centroid(points, centroids, metric), distances(points, centroids, metric).argmin(1))


@backends
@pytest.mark.parametrize("offset", [1000.0, -1e5])
def test_a_large_common_offset_costs_no_digits(offset, backend):
    points, centroids = (t + offset for t in arguments((200, 30, 16)))
    index = nearest_centroid(points, centroids, backend=backend)
    assert_nearest(index, distances(points, centroids, "euclidean"))


@backends
def test_cosine_does_not_see_lengths(backend):
    points, centroids = arguments((50, 20, 8))
    expected = nearest_centroid(points, centroids, "cosine", backend=backend)
    for factor in (2.0**-40, 2.0**40, 2.0**100):
        assert torch.equal(nearest_centroid(points, centroids * factor, "cosine", backend=backend), expected)
    assert torch.equal(nearest_centroid(points * 2.0**-40, centroids, "cosine", backend=backend), expected)


@backends
@metrics
def test_of_equal_ones_the_smallest_index_wins(metric, backend):
    # Products and sums are exact: eighths, and signs whose mean is 0 and whose length is 4. Of other numbers a CPU may
    # round the products of equal columns differently, which Triton's interpreter shows on some processors.
    points, signs = arguments((90, 35, 16))
    points, signs = (8 * points).round() / 8, signs.sign()
    centroids = torch.cat([signs, -signs])
    once = nearest_centroid(points, centroids, metric, backend=backend)
    assert torch.equal(nearest_centroid(points, centroids.repeat(3, 1), metric, backend=backend), once)


@backends
def test_points_halfway_go_to_the_smallest_index(backend):
    centroids = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]) + 7
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]) + 7
    assert nearest_centroid(points, centroids, backend=backend).tolist() == [1, 0, 2, 3]


@backends
def test_a_zero_vector_is_similar_to_none(backend):
    centroids = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]])
    points = torch.tensor([[1.0, 0.5], [0.0, 0.0], [-2.0, 1.0]])
    assert nearest_centroid(points, centroids, "cosine", backend=backend).tolist() == [1, 0, 2]


@backends
@metrics
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_never_wins(bad, metric, backend):
    points, centroids = arguments((20, 6, 5))
    good = nearest_centroid(points, centroids, metric, backend=backend)
    spoilt = torch.cat([centroids[:1], centroids])
    spoilt[0, 2] = bad
    assert torch.equal(nearest_centroid(points, spoilt, metric, backend=backend), good + 1)
    points[3, 1] = bad
    good[3] = 0
    assert torch.equal(nearest_centroid(points, centroids, metric, backend=backend), good)
    nothing = torch.full_like(centroids, bad)
    assert nearest_centroid(points, nothing, metric, backend=backend).tolist() == [0] * 20


@metrics
def test_chunks_change_no_index(metric):
    points, centroids = arguments((60, 20_000, 2), torch.float64)  # 26 points a chunk
    parts = [nearest_centroid(part, centroids, metric) for part in points.split(50)]
    assert torch.equal(nearest_centroid(points, centroids, metric), torch.cat(parts))
