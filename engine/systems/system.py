"""The classes with which a system declares its tasks, and the protocols of its loaded models.

Declarations import only pydantic, because the command reads all of them for its help.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from zellige.errors import TaskError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Generator", "Layered", "Model", "Options", "Source", "System", "Task"]


class Options(BaseModel):
    """The options of a task beside its inputs; every field is a flag of the task's verb, described in a sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Source:
    """An input of a task.

    Attributes:
        name: the name of the method's argument.
        help: a sentence for people.
        many: whether it is any number of files, given as arguments of the verb; else one file, given with a flag of
            this name.
        seeds: whether `seed:7` may stand for a file, and means an image that the model makes itself.
        together: whether all files of a source with `many` make one result, which is named after the first file.
    """

    name: str
    help: str
    many: bool = False
    seeds: bool = False
    together: bool = False


@dataclass(frozen=True)
class Task:
    """A task of a loaded model.

    Attributes:
        name: the name of the model's method, the command's verb and the service's route.
        help: a sentence for people.
        reads: the task's inputs, which are keyword arguments of the method.
        makes: the endings of the result files' names, in the order of the pictures that the method returns for a row of
            its inputs; {NAME} stands for the value of an option, or for the stem of a source's file.
        table: whether the method returns the columns of a table (a dataclass of arrays) instead of pictures.
        options: the method's other keyword arguments.
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
        name: its name in checkpoints, reports and errors.
        title: its name as its paper writes it.
        tasks: the tasks of its loaded models.
        graphs: the names of the graphs that `zellige export` writes, the keys of GRAPHS in its `graphs.py`.
        measured: the graph that `bench generate` times.
        references: named networks with random weights, each given as the fields of Config that differ from the paper's.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    graphs: tuple[str, ...]
    measured: str
    references: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of its folders in `engine/systems` and `training/systems`."""
        return self.name.replace("-", "_")

    def part(self, name: str) -> ModuleType:
        """Import one file of the system: "config", "model", "graphs" or "convert"."""
        return import_module(f".{self.folder}.{name}", __package__)

    def has(self, name: str) -> bool:
        """Tell whether the system has this file; not all have "convert"."""
        return find_spec(f".{self.folder}.{name}", __package__) is not None

    def task(self, name: str) -> Task:
        """The task of this name.

        Raises:
            TaskError: the system has no such task; the message names its tasks.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(task.name for task in self.tasks)
        raise TaskError(f"{self.title} has no task {name!r}; its tasks are {known}")


class Model(Protocol):
    """A loaded model of any system.

    Attributes:
        name: its name in reports and errors.
        system: the name of its system.
        config: the frozen configuration of its networks.
        device: the device that it runs on.
        batch: the most rows of a task's inputs that run at once, so that memory does not grow with their number.
        choices: its layers' choices of forms; empty if no layer was rewritten.
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
        """Read the files or arrays of one source of a task into a form with a length and slices, for the method."""
        ...

    def warm(self, counts: Iterable[int]) -> None:
        """Do now the extra work of the first calls for these numbers of images."""
        ...

    def trained(self) -> "nn.Module":
        """The networks as they were trained, read from the file again, because compilers and exporters change them."""
        ...


class Generator(Model, Protocol):
    """What may be asked of a model whose system declares the task `generate`: images that a seed draws."""

    def generate(self, count: int, seed: int = 0, *, first: int = 0, as_: Any = "numpy", **options: Any) -> Any:
        """Images `first` to `first + count - 1` of a seed; image k is the same in any range."""
        ...


class Layered(Protocol):
    """A generator whose layers can be read, as clusters need it.

    Attributes:
        layers: the names of its layers, from the latent to the image.
    """

    layers: tuple[str, ...]

    def draw(self, seed: int, first: int, count: int) -> "Tensor":
        """Latents of samples `first` to `first + count - 1` under a seed."""
        ...

    def features(self, latents: "Tensor", layer: str) -> "Tensor":
        """The maps [N, C, H, W] that a layer gives; later layers are not run."""
        ...

    def images(self, latents: "Tensor") -> "Tensor":
        """Images [N, 3, H, W] in [-1, 1]."""
        ...
