"""Rearranger: the style of one picture in the layout of another. Chae et al., NeurIPS 2023."""

from typing import Literal

from pydantic import Field

from ..system import Options, Source, System, Task


class Layout(Options):
    """How masks and pictures are read."""

    read: Literal["proxy", "image", "labels", "sketch", "edges"] = Field(
        "proxy",
        description="What a mask's file shows: proxy labels in the colours of the task proxy; an image whose layout is "
        "taken; and by a mapper classes in its colours, a drawing, or an image whose edges are taken.",
    )
    psi: float = Field(1.0, ge=0, le=2, description="Truncation of drawn images: 1 is as trained, 0 the mean image.")
    steps: int = Field(300, ge=1, le=10_000, description="Steps of the inversion of an image's file.")


class Drawing(Options):
    """How features are drawn, or inverted."""

    psi: float = Field(1.0, ge=0, le=2, description="Truncation of drawn images: 1 is as trained, 0 the mean image.")
    steps: int = Field(300, ge=1, le=10_000, description="Steps of the inversion of an image's file.")


FEATURES = Source("features", "The image that gives the style: a file, which is inverted.", seeds=True)
MASK = Source("mask", "What gives the layout: a painted mask, or an image with --read image.", seeds=True)
SYSTEM = System(
    name="rearranger",
    title="Rearranger",
    tasks=(
        Task("rearrange", "An image in the style of one picture and the layout of another.", reads=(FEATURES, MASK),
             makes=("as-{mask}",), options=Layout),
        Task("proxy", "The proxy mask of an image in colours, to be painted on.", reads=(FEATURES,), makes=("proxy",),
             options=Drawing),
        Task("project", "An image made again from the style vectors that come nearest to it.", reads=(FEATURES,),
             makes=("projected",), options=Drawing),
    ),
    graphs=("rearrange", "proxy", "map"),
    measured="rearrange",
    references={
        "rearranger-256": {"width": 256, "key_width": 256},
        "rearranger-256-labels": {"width": 256, "key_width": 256, "mapper": {}},
        "rearranger-256-edges": {"width": 256, "key_width": 256, "mapper": {"kind": "edges"}},
        "rearranger-64": {"generator": {"channels": (128, 128, 128, 96, 64), "z_dim": 256, "w_dim": 256}, "split": 32,
                          "width": 96, "key_width": 64},
    },
)  # fmt: skip
