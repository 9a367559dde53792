"""The verbs that are made from the tasks that systems declare; they read and write files."""

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from zellige.errors import TaskError

from ..engine.systems import all_systems, system_of
from ..engine.systems.system import Source, Task
from .flags import Offer, Verb, given_options, option_parameters, with_parameters
from .options import Device, Json, Model, OutFolder, Overwrite, Precision
from .printing import report
from .progress import progress
from .results import (
    columns_of,
    fit,
    listed,
    picture_names,
    refuse_existing,
    refuse_same,
    stem_of,
    write_pictures,
    write_table,
)

if TYPE_CHECKING:
    from ..engine.systems.system import Model as Loaded

__all__ = ["OWN_VERBS", "TaskVerb", "offers_of", "task_verbs"]

OWN_VERBS = ("generate", "panorama")  # tasks whose verbs take more than files and options; each has a module


def offers_of(name: str) -> list[Offer]:
    """Return the systems that have a task of this name, with their tasks."""
    return [(system, task) for system in all_systems() for task in system.tasks if task.name == name]


@dataclass(frozen=True)
class TaskVerb:
    """A verb, and its places in the help: the panel, the line in it, and the verb's own page."""

    name: str
    panel: str
    line: str
    help: str
    run: Verb


def task_verbs() -> Iterator[TaskVerb]:
    """Make a verb for each task that has no module of its own."""
    names = dict.fromkeys(task.name for system in all_systems() for task in system.tasks)
    for name in names:
        if name not in OWN_VERBS:
            offers = offers_of(name)
            panel = " and ".join(f"{system.title}'s" for system, _ in offers) + " tasks"
            line = _help(offers, [task.help for _, task in offers])
            page = _help(offers, [f"{task.help}{_written(task)}" for _, task in offers])
            yield TaskVerb(name, panel, line, page, _verb(offers))


def _verb(offers: Sequence[Offer]) -> Verb:
    name, table = offers[0][1].name, all(task.table for _, task in offers)
    sources = {source.name: source for _, task in offers for source in task.reads}
    parameters = [_source_parameter(source, offers) for source in sources.values()]
    if table:
        help = "The CSV file: a row an image."
        parameters.append(_keyword("out", Annotated[Path, typer.Option(help=help)]))
    else:
        parameters.append(_keyword("out", OutFolder))
    parameters += option_parameters(offers)

    def verb(
        context: typer.Context, model: Model, overwrite: Overwrite = False, device: Device = "auto",
        precision: Precision = "auto", as_json: Json = False, **values: Any,
    ) -> None:  # fmt: skip
        from ..engine.library import load_task

        out = values.pop("out")
        loaded = load_task(name, model, device, precision)
        task = system_of(loaded.system).task(name)
        given = {source: values.pop(source) for source in sources}
        options = given_options(context, task, values, loaded.name)
        run = _write_table if task.table else _write_pictures
        found = run(loaded, task, _inputs(task, given, loaded.name), options, out, overwrite)
        if "files" in found:
            found["files"] = listed(found["files"], as_json)
        report(found, as_json)

    return with_parameters(verb, parameters)


def _inputs(task: Task, given: Mapping[str, Any], model: str) -> dict[str, list[str]]:
    """Return the files of each source that the model's task reads; refuse a source that only other systems read."""
    read = {source.name for source in task.reads}
    for name, value in given.items():
        if value and name not in read:
            raise TaskError(f"{task.name} of {model} reads no {name}; leave out --{name}")
        if not value and name in read:
            raise TaskError(f"{task.name} of {model} needs {name}: {_source(task, name).help}")
    return {name: value if isinstance(value, list) else [value] for name, value in given.items() if name in read}


def _write_pictures(
    model: "Loaded", task: Task, inputs: Mapping[str, list[str]], options: Any, out: Path, overwrite: bool
) -> dict[str, Any]:
    main, files = _rows_of(task, inputs, model.name)
    targets = picture_names(files, _endings(task, inputs, options), out)
    written = [path for row in zip(*targets, strict=True) for path in row]
    _refuse(model, task, inputs, written, overwrite)
    began = time.perf_counter()
    read = {name: model.read(name, paths) for name, paths in inputs.items()}
    keywords = options.model_dump(exclude_unset=True)

    def run(rows: Any) -> list[Any]:
        made = getattr(model, task.name)(**(read | ({main: rows} if main else {})), **keywords)
        return [made] if len(task.makes) == 1 else list(columns_of(made).values())

    with progress(task.name, lambda rate: f"{rate:.2f} images/s") as advance:
        write_pictures(run, read[main] if main else [None], model.batch, files, targets, advance)
    return _report(model, len(files), began) | {"files": written}


def _write_table(
    model: "Loaded", task: Task, inputs: Mapping[str, list[str]], options: Any, out: Path, overwrite: bool
) -> dict[str, Any]:
    from ..engine.files.atomic import AtomicFile

    output = AtomicFile(out)  # refuses a path that cannot be written, before anything is read
    _refuse(model, task, inputs, [out], overwrite)
    began = time.perf_counter()
    read = {name: model.read(name, paths) for name, paths in inputs.items()}
    found = getattr(model, task.name)(**read, **options.model_dump(exclude_unset=True))
    _, files = _rows_of(task, inputs, model.name)
    write_table(output, files, columns_of(found))
    return _report(model, len(files), began) | getattr(found, "counts", {}) | {"out": str(out)}


def _refuse(model: "Loaded", task: Task, inputs: Mapping[str, list[str]], outputs: list[Path], overwrite: bool) -> None:
    refuse_existing(outputs, overwrite)
    flags = {name: name if _source(task, name).many else f"--{name}" for name in inputs}
    given = {f"an input, {flags[name]}": map(Path, paths) for name, paths in inputs.items()}
    refuse_same({"--out": outputs}, given)


def _endings(task: Task, inputs: Mapping[str, list[str]], options: Any) -> list[str]:
    stems = {name: stem_of(paths[0]) for name, paths in inputs.items()}
    values = {name: fit(value) for name, value in options.model_dump().items()}
    return [ending.format(**(stems | values)) for ending in task.makes]


def _rows_of(task: Task, inputs: Mapping[str, list[str]], model: str) -> tuple[str | None, list[str]]:
    """Return the source that gives one result for each of its files, and these files.

    A task without a source of many files has one result, named after its first input, or else after the model.
    """
    for source in task.reads:
        if source.many and not source.together:
            return source.name, inputs[source.name]
    return None, inputs[task.reads[0].name][:1] if task.reads else [model]


def _source(task: Task, name: str) -> Source:
    return next(source for source in task.reads if source.name == name)


def _source_parameter(source: Source, offers: Sequence[Offer]) -> inspect.Parameter:
    help = escape(source.help) + (" Or seed:7 for an image of that seed." if source.seeds else "")
    everywhere = all(any(own.name == source.name for own in task.reads) for _, task in offers)
    default = inspect.Parameter.empty if everywhere else None
    if source.many:
        return _keyword(source.name, Annotated[list[str], typer.Argument(help=help)], default)
    kind: Any = str if everywhere else str | None
    return _keyword(source.name, Annotated[kind, typer.Option(f"--{source.name}", help=help)], default)


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _help(offers: Sequence[Offer], texts: Sequence[str]) -> str:
    """Return one text if all systems have the same, else one for each system."""
    if len(set(texts)) == 1:
        return escape(texts[0])
    return " ".join(f"{system.title}: {escape(text)}" for (system, _), text in zip(offers, texts, strict=True))


def _written(task: Task) -> str:
    """Say in the help how the results are called, such as STEM-child-CHILD.png."""
    if task.table:
        return ""
    names = [f"STEM-{ending.format_map(_Upper())}.png" for ending in task.makes]
    whose = "the first file" if any(source.together for source in task.reads) else "every file"
    return f" Writes {', '.join(names)} for {whose} STEM."


class _Upper(dict[str, str]):
    """A dictionary that gives every key in capitals."""

    def __missing__(self, key: str) -> str:
        return key.upper()


def _report(model: "Loaded", images: int, began: float) -> dict[str, Any]:
    seconds = time.perf_counter() - began
    return {
        "model": model.name,
        "images": images,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "device": str(model.device),
        "precision": model.precision,
    }
