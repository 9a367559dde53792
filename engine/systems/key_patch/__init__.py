"""Key patches: a whole image, and where its parts belong, from a few small patches. Lee et al., ECCV 2018."""

from typing import Literal

from pydantic import Field

from ..system import Options, Source, System, Task


class Parts(Options):
    """What `compose` takes of its files."""

    box: list[str] | None = Field(
        None,
        description="X,Y,WIDTH,HEIGHT of a patch in pixels of its image; once for every file, or all of one file. "
        "Without one, files are patches.",
    )
    boxes: str | None = Field(None, description="A text file of boxes, one a line, in place of --box.")
    noise: float = Field(0.0, ge=0, le=2, description="Deviation of noise on the last patch; pixels are -1 to 1.")
    seed: int = Field(0, ge=0, description="Of the noise, and of z if the model takes one.")


class Selection(Options):
    """Which patches `complete` cuts out."""

    patches: int = Field(3, ge=1, le=64, description="Patches of an image.")
    select: Literal["edges", "edgeboxes", "random"] = Field(
        "edges", description="Key patches by density of edges, or by OpenCV's EdgeBoxes; or random places."
    )
    edge_model: str | None = Field(
        None, description="File of structured edges for EdgeBoxes, in OpenCV's format; a plain gradient if left out."
    )
    area: float | None = Field(
        None, gt=0, le=1, description="Greatest share of the image that a patch covers; the model's if left out."
    )
    noise: float = Field(0.0, ge=0, le=2, description="Deviation of noise on the last patch; pixels are -1 to 1.")
    seed: int = Field(0, ge=0, description="Of random places and noise, and of z if the model takes one.")


MAKES = ("image", "mask", "composite", "row")
PATCHES = Source("patches", "Patches of any size, or images with --box; all make one image.", many=True, together=True)
IMAGES = Source("images", "Image files of any size; their centre squares are taken.", many=True)
SYSTEM = System(
    name="key-patch",
    title="KeyPatchGAN",
    tasks=(
        Task("compose", "One image from patches, and a mask of where they belong.", reads=(PATCHES,), makes=MAKES,
             options=Parts),
        Task("complete", "Images made again from a few of their patches.", reads=(IMAGES,), makes=MAKES,
             options=Selection),
    ),
    graphs=("compose", "picture"),
    measured="picture",
    references={"key-patch-256": {}, "key-patch-64": {"resolution": 64}},
)  # fmt: skip
