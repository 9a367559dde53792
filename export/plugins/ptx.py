"""Changes to PTX before a plugin of TensorRT launches it: a name of its own, and only parameters that it is given."""

import re

__all__ = ["renamed", "with_visible_parameters"]


def with_visible_parameters(ptx: str, entry: str, visible: int) -> str | None:
    """Remove the parameters behind the first `visible` ones, or return None if the code reads them.

    Triton declares two pointers to scratch memory behind every kernel's arguments. TensorRT passes only inputs, sizes
    and outputs, but a launch reads as many parameters as are declared.

    Args:
        ptx: the PTX of one kernel.
        entry: the kernel's name.
        visible: number of the kernel's arguments.
    """
    declared = re.search(rf"\.entry\s+{re.escape(entry)}\((.*?)\)", ptx, re.DOTALL)
    if declared is None:
        return None
    parameters = declared[1].split(",")
    names = [parameter.split()[-1] for parameter in parameters[visible:]]
    body = ptx[declared.end() :]
    if any(re.search(rf"\b{re.escape(name)}\b", body) for name in names):
        return None
    kept = ",".join(parameters[:visible]) + "\n"
    return ptx[: declared.start(1)] + kept + ptx[declared.end(1) :]


def renamed(ptx: str, entry: str, name: str) -> str:
    """Give a kernel another name, because Triton names it after its function, and functions of kernels share names."""
    return re.sub(rf"(?<!\w){re.escape(entry)}(?=_param_\d|\W)", name, ptx)
