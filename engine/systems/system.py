"""What a system declares of itself, and what may be asked of its loaded models.

The declarations import pydantic alone: the command reads all of them for its help.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from zellige.errors import TaskError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Generator", "Layered", "Model", "Options", "Source", "System", "Task"]


class Options(BaseModel):
    """What a task can be told beside its inputs; every field is a flag of its verb, described in a sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Source:
    """An input of a task.

    Attributes:
        name: argument of the model's method.
        help: a sentence for people.
        many: whether it takes any number of files, as arguments of the verb; else one, by a flag of this name.
        seeds: whether `seed:7` names one that the model makes itself.
        together: whether all files of one that takes many make one result, which is named after the first.
    """

    name: str
    help: str
    many: bool = False
    seeds: bool = False
    together: bool = False


@dataclass(frozen=True)
class Task:
    """Something that a loaded model does.

    Attributes:
        name: the method of the model, the verb of the command, the route of the service.
        help: a sentence for people.
        reads: its inputs, keyword arguments of the method.
        makes: how the names of the result files end, one for each picture that the method returns for a row of its
            inputs, in their order; {NAME} stands for the value of an option, or for the stem of a source's file.
        table: whether the method returns columns of a table, a dataclass of arrays, and no pictures.
        options: its further keyword arguments.
    """

    name: str
    help: str
    reads: tuple[Source, ...] = ()
    makes: tuple[str, ...] = ()
    table: bool = False
    options: type[Options] = Options


@dataclass(frozen=True)
class System:
    """A row of the table.

    Attributes:
        name: in checkpoints, reports and errors.
        title: as its paper writes it.
        tasks: what its loaded models do.
        graphs: names of what `zellige export` writes, the keys of GRAPHS in its `graphs.py`.
        measured: the graph that `bench generate` times.
        references: networks of random weights by name: fields of its Config that differ from the paper's.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    graphs: tuple[str, ...]
    measured: str
    references: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Name of its folders in `engine/systems` and `training/systems`."""
        return self.name.replace("-", "_")

    def part(self, name: str) -> ModuleType:
        """One file of the system, imported when it is needed: "config", "model", "graphs" or "convert"."""
        return import_module(f".{self.folder}.{name}", __package__)

    def task(self, name: str) -> Task:
        """The task of a name.

        Raises:
            TaskError: the system has no such task; names those that it has.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(task.name for task in self.tasks)
        raise TaskError(f"{self.title} has no task {name!r}; its tasks are {known}")


class Model(Protocol):
    """What may be asked of any loaded model.

    Attributes:
        name: it goes by this name in reports and errors.
        system: name of its system.
        config: of its networks, frozen.
        device: where it runs.
        batch: most rows of a task's inputs that go through at once; memory does not grow with their number.
        choices: the forms that its layers run in; empty where nothing was rewritten.
    """

    name: str
    system: str
    config: Any
    device: "torch.device"
    batch: int
    choices: list[Any]

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        ...

    def read(self, source: str, given: Any) -> Any:
        """Files or arrays of one of a task's sources as the method takes them: of a length, and cut by slices."""
        ...

    def warm(self, counts: Iterable[int]) -> None:
        """Do now the work of the first calls for these numbers of images."""
        ...

    def trained(self) -> "nn.Module":
        """The networks as they were trained, read again: for compilers and exporters, which may change them."""
        ...


class Generator(Model, Protocol):
    """What may be asked of a model whose system declares the task `generate`: images that a seed draws."""

    def generate(self, count: int, seed: int = 0, *, first: int = 0, as_: Any = "numpy", **options: Any) -> Any:
        """Images `first` to `first + count` of a seed; image k is the same whatever the range is."""
        ...


class Layered(Protocol):
    """What clusters need of a generator.

    Attributes:
        layers: names of its layers, from the latent to the image.
    """

    layers: tuple[str, ...]

    def draw(self, seed: int, first: int, count: int) -> "Tensor":
        """Latents of samples `first` to `first + count` under a seed."""
        ...

    def features(self, latents: "Tensor", layer: str) -> "Tensor":
        """Maps behind a layer, [N, C, H, W]; nothing further is run."""
        ...

    def images(self, latents: "Tensor") -> "Tensor":
        """Images [N, 3, H, W] in [-1, 1]."""
        ...
