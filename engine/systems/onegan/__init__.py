"""OneGAN: images by class, masks, clusters, other styles, other backgrounds. Benny & Wolf, ECCV 2020."""

from pydantic import Field

from ..system import Options, Source, System, Task


class Classes(Options):
    """The classes that `generate` draws unless they are given."""

    child: int | None = Field(None, ge=0, description="Class of the style; drawn if left out.")
    parent: int | None = Field(None, ge=0, description="Class of the shape; the child's if left out.")
    background: int | None = Field(None, ge=0, description="Class of the background; the parent's if left out.")
    like: str | None = Field(None, description="An image file whose classes are taken.")


class Style(Options):
    """The style that `translate` gives to objects."""

    child: int = Field(ge=0, description="Class whose style the objects get.")


class Softness(Options):
    """Whether `segment` returns grey or black-and-white masks."""

    soft: bool = Field(False, description="Grey masks, without the threshold of 0.5.")


IMAGES = Source("images", "Image files of any size; their centre squares are taken.", many=True)
BACKGROUND = Source("background", "The image whose background is taken.")
SYSTEM = System(
    name="onegan",
    title="OneGAN",
    tasks=(
        Task("generate", "Images by class.", options=Classes),
        Task("reconstruct", "Make images again, with their parts.", reads=(IMAGES,),
             makes=("reconstruction", "foreground", "background", "mask")),
        Task("segment", "Masks of the objects, at the images' sizes.", reads=(IMAGES,), makes=("mask",),
             options=Softness),
        Task("cluster", "Child class (style) and parent class (shape) of every image.", reads=(IMAGES,), table=True),
        Task("translate", "Give objects the style of another class; shape, pose and background stay.", reads=(IMAGES,),
             makes=("child-{child}",), options=Style),
        Task("inpaint", "Remove the objects; the whole background is made again.", reads=(IMAGES,),
             makes=("background",)),
        Task("recompose", "Lay objects over the background of another image.", reads=(IMAGES, BACKGROUND),
             makes=("on-{background}",)),
    ),
    graphs=("generate", "like", "reconstruct", "segment", "cluster", "translate", "inpaint", "recompose"),
    measured="generate",
    references={"onegan-128": {}},
)  # fmt: skip
