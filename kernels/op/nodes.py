"""The declarations in a kernel's graph.py, which make it a node of ONNX's domain `zellige`.

A graph.py holds `NODES`, the nodes, and `translate(nodes, ...)`, which takes the arguments of the kernel's custom op
and returns the values that the ONNX exporter writes for them. `zellige.export.nodes` collects both from every folder.

The text of a function is written in ONNX's own syntax. It computes in float32 and rounds once, like the kernel.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["DOMAIN", "OPSET", "VERSION", "Kind", "Node", "constant", "widened"]

DOMAIN, VERSION = "zellige", 1
OPSET = 20  # version of the standard operators in functions
Kind = type[float] | type[int] | type[str]
Fixed = Mapping[str, int | str]


@dataclass(frozen=True)
class Node:
    """A node, and the function of standard operators that stands for it in runtimes that lack the kernel.

    Attributes:
        name: of the node, such as "AffineRelu".
        inputs: names of the tensors in order; the first one's dtype is that of the maps.
        body: makes the function's text, from the inputs to `y`, for the values of the `int` and `str` attributes.
        attributes: their kinds by name. A `float` is a parameter of the function, `@name` in its text. An `int` or a
            `str` decides which operators the function consists of.
    """

    name: str
    inputs: tuple[str, ...]
    body: Callable[[Fixed], str]
    attributes: Mapping[str, Kind] = field(default_factory=dict)

    def function(self, fixed: Fixed) -> str:
        """Return the whole text of the function for the values of the `int` and `str` attributes."""
        signature = f"{self.name} <{', '.join(self.attributes)}> ({', '.join(self.inputs)}) => (y)"
        return f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>\n{signature}\n{{\n{self.body(fixed)}}}'


def widened(*names: str) -> str:
    """Return the lines that cast tensors to float32: `x` becomes `x32`."""
    return "".join(f"{name}32 = Cast <to = 1> ({name})\n" for name in names)


def constant(name: str, attribute: str) -> str:
    """Return the line that makes a float attribute a tensor of its own."""
    return f"{name} = Constant <value_float: float = @{attribute}> ()\n"
