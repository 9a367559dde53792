"""Tiny: a system as small as one can be, which no other file knows."""

from pydantic import Field

from zellige.engine.systems.system import Options, Source, System, Task


class Strength(Options):
    """How far `invert` goes."""

    strength: float = Field(1.0, ge=0, le=1, description="Share of the way to the inverse.")


IMAGES = Source("images", "Image files.", many=True)
PARTS = Source("parts", "Image files that make one image.", many=True, together=True)
FRAME = Source("frame", "The image that the borders are taken of.")
SYSTEM = System(
    name="tiny",
    title="Tiny",
    tasks=(
        Task("generate", "Images under a seed."),
        Task(
            "invert",
            "Images turned into their negatives.",
            reads=(IMAGES,),
            makes=("inverse", "grey"),
            options=Strength,
        ),
        Task("reframe", "Images in the frame of another.", reads=(IMAGES, FRAME), makes=("in-{frame}",)),
        Task("mix", "The mean of images.", reads=(PARTS,), makes=("mixed",)),
        Task("weigh", "Mean level of every image.", reads=(IMAGES,), table=True),
    ),
    graphs=("generate", "invert"),
    measured="generate",
    references={"tiny-8": {"side": 8}},
)
