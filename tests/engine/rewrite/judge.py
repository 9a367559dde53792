"""How rewrites are judged: against the untouched layer in float64, on maps of every odd size."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

SIDES = [(1, 1), (1, 2), (2, 1), (1, 5), (2, 2), (3, 3), (4, 4), (5, 8), (7, 3)]


def layer(kind: Callable[..., nn.Module], *sizes: object, seed: int = 0, **chosen: object) -> nn.Module:
    """A layer with weights and biases that are not small."""
    torch.manual_seed(seed)
    made = kind(*sizes, **chosen)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def random(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_exact(
    rewrite: Callable[[nn.Module], nn.Module],
    trained: nn.Module,
    eager: Callable[..., Tensor],
    *inputs: Tensor,
) -> None:
    """In float64 to 1e-12, in float32 within torch.testing's defaults, and the trained layer stays as it is.

    Args:
        rewrite: from the trained layer to the rewritten one.
        trained: in float32.
        eager: what the trained layer computes, of the layer in float64 and the inputs.
        inputs: in float64.
    """
    before = copy.deepcopy(trained.state_dict())
    wide = copy.deepcopy(trained).double()
    with torch.no_grad():
        exact = eager(wide, *inputs)
    actual = rewrite(wide)(*inputs)
    assert actual.dtype == torch.float64 and actual.shape == exact.shape
    scale = max(1.0, exact.abs().max().item()) if exact.numel() else 1.0
    torch.testing.assert_close(actual, exact, rtol=1e-12, atol=1e-12 * scale)
    made = rewrite(trained)
    assert not made.training and not any(tensor.requires_grad for tensor in made.parameters())
    narrow = made(*(tensor.float() for tensor in inputs))
    assert narrow.dtype == torch.float32 and not narrow.requires_grad
    torch.testing.assert_close(narrow, exact.float())
    after = trained.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
