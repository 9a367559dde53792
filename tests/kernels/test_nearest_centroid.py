import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import nearest_centroid

from .judge import DTYPES

BACKENDS = ["reference", "triton"]
METRICS = ["euclidean", "cosine"]
# (M, K, D): single values, odd sizes, one fewer and one more than a block of the GPU kernel in each direction.
SHAPES = [(1, 1, 1), (7, 3, 1), (63, 5, 3), (65, 65, 31), (130, 63, 33), (3, 200, 7)]
backends = pytest.mark.parametrize("backend", BACKENDS)
metrics = pytest.mark.parametrize("metric", METRICS)


def arguments(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    m, k, d = shape
    return torch.randn(m, d, generator=random).to(dtype), torch.randn(k, d, generator=random).to(dtype)


def distances(points: Tensor, centroids: Tensor, metric: str) -> Tensor:
    """Distances [M, K] by their definition, in float64, the smallest being the nearest."""
    points, centroids = points.double()[:, None], centroids.double()[None]
    if metric == "euclidean":
        return (points - centroids).square().sum(2)
    return -torch.nn.functional.cosine_similarity(points, centroids, dim=2, eps=1e-300)


def assert_nearest(index: Tensor, points: Tensor, centroids: Tensor, metric: str, tolerance: float = 1e-5) -> None:
    """Nothing is nearer by more than float32 can tell, measured against the points' own size."""
    assert index.dtype == torch.int64 and index.shape == points.shape[:1]
    far = distances(points, centroids, metric)
    chosen = far.gather(1, index[:, None])[:, 0]
    assert ((chosen - far.amin(1)) <= tolerance * (1 + far.amin(1).abs())).all()


@backends
@metrics
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_centroid_is_nearer(shape, dtype, metric, backend):
    points, centroids = arguments(shape, dtype)
    assert_nearest(nearest_centroid(points, centroids, metric, backend=backend), points, centroids, metric)


@metrics
def test_float64_gives_the_definitions_indices(metric):
    points, centroids = arguments((300, 40, 9), torch.float64)
    assert torch.equal(nearest_centroid(points, centroids, metric), distances(points, centroids, metric).argmin(1))


@given(
    shape=st.tuples(st.integers(0, 40), st.integers(1, 90), st.integers(1, 40)),
    dtype=st.sampled_from(DTYPES),
    metric=st.sampled_from(METRICS),
    backend=st.sampled_from(BACKENDS),
    seed=st.integers(0, 99),
)
def test_no_centroid_is_nearer_for_any_sizes(shape, dtype, metric, backend, seed):
    points, centroids = arguments(shape, dtype, seed)
    assert_nearest(nearest_centroid(points, centroids, metric, backend=backend), points, centroids, metric)


@backends
@pytest.mark.parametrize("offset", [1000.0, -1e5])
def test_a_large_common_offset_costs_no_digits(offset, backend):
    points, centroids = (t + offset for t in arguments((200, 30, 16)))
    index = nearest_centroid(points, centroids, backend=backend)
    assert_nearest(index, points, centroids, "euclidean")


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
    points, centroids = arguments((90, 70, 19))
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


LAYOUTS = {
    "transposed": lambda t: t.T.contiguous().T,
    "sliced": lambda t: t.repeat(2, 3)[: t.shape[0]].repeat_interleave(2, 1)[:, : 2 * t.shape[1] : 2],
    "expanded": lambda t: t[:1].expand_as(t),
    "misaligned": lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view_as(t),
}


@backends
@metrics
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_change_no_index(layout, metric, backend):
    points, centroids = (LAYOUTS[layout](t) for t in arguments((30, 11, 6)))
    expected = nearest_centroid(points.contiguous(), centroids.contiguous(), metric, backend=backend)
    assert torch.equal(nearest_centroid(points, centroids, metric, backend=backend), expected)


@metrics
def test_chunks_change_no_index(metric):
    points, centroids = arguments((60, 20_000, 2), torch.float64)  # 26 points a chunk
    parts = [nearest_centroid(part, centroids, metric) for part in points.split(50)]
    assert torch.equal(nearest_centroid(points, centroids, metric), torch.cat(parts))


@backends
@metrics
def test_no_points_get_no_indices(metric, backend):
    index = nearest_centroid(*arguments((0, 4, 3)), metric, backend=backend)
    assert index.shape == (0,) and index.dtype == torch.int64


@backends
def test_arguments_are_not_changed_and_indices_require_no_gradient(backend):
    points, centroids = (t.requires_grad_() for t in arguments((9, 4, 3)))
    before = points.detach().clone(), centroids.detach().clone()
    assert not nearest_centroid(points, centroids, backend=backend).requires_grad
    assert torch.equal(points.detach(), before[0]) and torch.equal(centroids.detach(), before[1])


@backends
@metrics
def test_ten_runs_give_the_same_indices(metric, backend):
    points, centroids = arguments((70, 70, 9), torch.bfloat16)
    first = nearest_centroid(points, centroids, metric, backend=backend)
    for _ in range(10):
        assert torch.equal(nearest_centroid(points, centroids, metric, backend=backend), first)


@backends
@metrics
def test_custom_op_passes_opcheck(metric, backend):
    inputs = arguments((9, 4, 3))
    torch.library.opcheck(torch.ops.zellige.nearest_centroid.default, (*inputs, metric, backend))


def test_compiles_as_one_graph_and_exports():
    class Layer(torch.nn.Module):
        def forward(self, points: Tensor, centroids: Tensor) -> Tensor:
            return nearest_centroid(points, centroids, "cosine") + 1

    inputs = arguments((9, 4, 3))
    expected = Layer()(*inputs)
    assert torch.equal(torch.compile(Layer(), fullgraph=True, backend="aot_eager")(*inputs), expected)
    assert torch.equal(torch.export.export(Layer(), inputs).module()(*inputs), expected)


GOOD = {"points": torch.zeros(7, 5), "centroids": torch.zeros(3, 5)}
POINTS = "it must be [M, D] with D at least 1, float32, float16, bfloat16 or float64."
CENTROIDS = "it must be [K, 5] with K at least 1, float32, for points of shape [7, 5]."


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"points": torch.zeros(7)}, f"points is [7] float32; {POINTS}"),
        ({"points": torch.zeros(7, 0)}, f"points is [7, 0] float32; {POINTS}"),
        ({"points": torch.zeros(7, 5).int()}, f"points is [7, 5] int32; {POINTS}"),
        ({"centroids": torch.zeros(0, 5)}, f"centroids is [0, 5] float32; {CENTROIDS}"),
        ({"centroids": torch.zeros(3, 4)}, f"centroids is [3, 4] float32; {CENTROIDS}"),
        ({"centroids": torch.zeros(5)}, f"centroids is [5] float32; {CENTROIDS}"),
        ({"centroids": torch.zeros(3, 5).half()}, f"centroids is [3, 5] float16; {CENTROIDS}"),
        (
            {"centroids": torch.zeros(3, 5, device="meta")},
            "centroids is on meta but points are on cpu; move it there.",
        ),
        ({"metric": "manhattan"}, "metric is 'manhattan'; it must be 'euclidean' or 'cosine'."),
    ],
)
def test_bad_argument_is_named(changed, sentence):
    with pytest.raises(ShapeError) as error:
        nearest_centroid(**(GOOD | changed))
    assert str(error.value) == sentence


def test_there_is_no_native_backend():
    with pytest.raises(DeviceError, match="'native' cannot run on float32 cpu tensors here"):
        nearest_centroid(**GOOD, backend="native")


@pytest.mark.gpu
@metrics
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_centroid_is_nearer_on_a_gpu_at_full_shape(dtype, metric):
    points, centroids = (t.cuda() for t in arguments((8191, 257, 130), dtype))
    index = nearest_centroid(points, centroids, metric, backend="triton")
    assert_nearest(index, points, centroids, metric)
