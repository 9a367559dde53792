"""COCO-GAN: images and panoramas of any size, made of micro patches. Lin et al., ICCV 2019."""

from ..system import System, Task

SYSTEM = System(
    name="coco-gan",
    title="COCO-GAN",
    tasks=(
        Task("generate", "Images under a seed."),
        Task("panorama", "A panorama of any size within a memory budget."),
    ),
    graphs=("generate", "patches"),
    measured="patches",
    references={"coco-gan-256": {"patch": 64}},
)
