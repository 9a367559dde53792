from torch import Tensor

def feather_blend(
    patches: Tensor, positions: Tensor, window_rows: Tensor, window_columns: Tensor, picture: Tensor
) -> None: ...
