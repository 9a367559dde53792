"""feather_blend in plain PyTorch: the definition of right, which the other backends match bit for bit."""

import torch
from torch import Tensor


def feather_blend_reference(
    patches: Tensor, positions: Tensor, window_rows: Tensor, window_columns: Tensor, height: int, width: int
) -> Tensor:
    """Blend patches into a float picture [H, W, C]; arguments are those of op.py, validated."""
    _, channels, patch_rows, patch_columns = patches.shape
    # -0.0 is the neutral element of the sum: 0.0 + -0.0 would lose the sign of a pixel that only one patch covers.
    sums = torch.full((channels, height, width), -0.0, dtype=torch.float32, device=patches.device)
    totals = torch.zeros(height, width, dtype=torch.float32, device=patches.device)
    window = window_rows[:, None] * window_columns
    for patch, (top, left) in zip(patches, positions.tolist(), strict=True):
        rows = slice(max(top, 0), min(top + patch_rows, height))
        columns = slice(max(left, 0), min(left + patch_columns, width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        sums[:, rows, columns] += window[inside] * patch[(slice(None), *inside)].float()
        totals[rows, columns] += window[inside]
    return torch.where(totals > 0, sums / totals, 0.0).permute(1, 2, 0).contiguous()
