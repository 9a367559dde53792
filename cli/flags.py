"""Options of the command: their bounds, pydantic fields as options, and the refusal of options that are not used."""

import functools
import inspect
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from rich.markup import escape

from zellige.errors import SizeError, TaskError

from ..engine.systems.system import Options, System, Task

__all__ = [
    "Offer",
    "Verb",
    "command_of",
    "given_options",
    "number",
    "option_parameters",
    "refuse_unused",
    "with_options",
    "with_parameters",
]

Verb = Callable[..., None]
Offer = tuple[System, Task]  # a system, and its task that has the verb's name


def number(help: str, *flags: str, least: int, most: int | None = None) -> Any:
    """Make an option that takes numbers within bounds, which its help shows.

    Args:
        help: a sentence for people.
        flags: such as "--count"; by default the parameter's name.
        least, most: the bounds; None is no bound.
    """
    bounds = _bounds(least, most)

    def within(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None and (value < least or (most is not None and value > most)):
            raise SizeError(f"{_flag(param)} must be {bounds}, not {value}")
        return value

    return typer.Option(*flags, help=f"{help} {bounds[0].upper()}{bounds[1:]}.", callback=within)


def with_options(verb: Verb, offers: Sequence[Offer]) -> Verb:
    """Return a verb whose `**options` are the options of its task in every system."""
    return with_parameters(verb, option_parameters(offers))


def with_parameters(verb: Verb, parameters: Iterable[inspect.Parameter]) -> Verb:
    """Return a verb whose `**options` are these parameters; its help has arguments first, then its own options."""
    own = [p for p in inspect.signature(verb).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]

    @functools.wraps(verb)
    def wrapped(**values: Any) -> None:
        verb(**values)

    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *parameters)]
    wrapped.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return wrapped


def option_parameters(offers: Sequence[Offer]) -> list[inspect.Parameter]:
    """Return the fields of a task's options in all its systems, as parameters of the verb.

    If only some systems have a field, its help names them. An option is required if every system requires it.
    """
    fields: dict[str, list[tuple[System, FieldInfo]]] = {}
    for system, task in offers:
        for name, field in task.options.model_fields.items():
            fields.setdefault(name, []).append((system, field))
    return [_parameter(name, found, shared=len(found) == len(offers)) for name, found in fields.items()]


def given_options(context: typer.Context, task: Task, values: Mapping[str, Any], model: str) -> Options:
    """Return the options of a model's task; those that were left out have their defaults and count as unset.

    Args:
        context: context of the verb.
        task: the task of the model's system.
        values: values of all options of the verb that come from fields.
        model: name of the model, for errors.
    Raises:
        TaskError: an option was given that this task does not have, one is missing, or a value is out of bounds.
    """
    given = {name: value for name, value in values.items() if name in _given(context)}
    for name in given:
        if name not in task.options.model_fields:
            has = [_flag_name(known) for known in task.options.model_fields]
            told = f"it has {', '.join(has)}" if has else "it has no options of its own"
            raise TaskError(f"{context.info_name} of {model} has no option {_flag_name(name)}; {told}")
    try:
        return task.options.model_validate(given)
    except ValidationError as error:
        raise TaskError(_refusal(task, error)) from error


def command_of(context: typer.Context, without: Iterable[str]) -> str:
    """Return the command as it was given, for a shell, without some of its options.

    Args:
        context: context of the verb.
        without: names of the parameters that are left out.
    """
    words = ["zellige", str(context.info_name)]
    given = _given(context)
    for param in context.command.params:
        if param.name not in given or param.name in without:
            continue
        value = context.params[param.name]
        if param.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words.append(given[param.name] if value else param.secondary_opts[0])
        else:
            words += [given[param.name], str(value)]
    return shlex.join(words)


def refuse_unused(context: typer.Context, choice: str, names: Iterable[str]) -> None:
    """Refuse options that were given although a choice does not use them.

    Args:
        context: context of the verb.
        choice: the choice as it was typed, such as "--to onnx".
        names: names of the parameters that the choice does not use.
    Raises:
        TaskError: one of them was given.
    """
    given = _given(context)
    unused = [given[name] for name in names if name in given]
    if unused:
        listed = " and ".join([", ".join(unused[:-1]), unused[-1]] if len(unused) > 1 else unused)
        raise TaskError(f"{choice} does not use {listed}; leave {'them' if len(unused) > 1 else 'it'} out")


def _given(context: typer.Context) -> dict[str, str]:
    """Return the flags of options that the caller gave, by their parameters' names."""
    found = {}
    for param in context.command.params:
        source = context.get_parameter_source(param.name)
        if source is not None and source.name != "DEFAULT":
            found[param.name] = _flag(param)
    return found


def _parameter(name: str, found: list[tuple[System, FieldInfo]], shared: bool) -> inspect.Parameter:
    field = found[0][1]
    texts = [f"{escape(one.description or '')}{_limits(one)}" for _, one in found]
    if shared and len(set(texts)) == 1:
        help = texts[0]
    else:
        help = " ".join(f"{system.title}: {text}" for (system, _), text in zip(found, texts, strict=True))
    annotation: Any = field.annotation
    required = [one.is_required() for _, one in found]
    if shared and all(required):
        default: Any = inspect.Parameter.empty
    elif any(required):
        annotation, default = annotation | None, None
    else:
        default = field.default
    flag = _flag_name(name) if not (annotation is bool and default is True) else f"{_flag_name(name)}/--no-{name}"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, typer.Option(flag, help=help)],
    )


def _limits(field: FieldInfo) -> str:
    """Return a field's bounds as a sentence that follows its description."""
    least, most = _extremes(field)
    bounds = _bounds(least, most) if least is not None or most is not None else ""
    return f" {bounds[0].upper()}{bounds[1:]}." if bounds else ""


def _extremes(field: FieldInfo) -> tuple[Any, Any]:
    found = [next((getattr(m, side) for m in field.metadata if hasattr(m, side)), None) for side in ("ge", "le")]
    return found[0], found[1]


def _bounds(least: Any, most: Any) -> str:
    if most is None:
        return f"{least} or more"
    return f"{most} or less" if least is None else f"from {least} to {most}"


def _refusal(task: Task, error: ValidationError) -> str:
    fault = error.errors()[0]
    if not fault["loc"]:
        return fault["msg"].removeprefix("Value error, ")
    name = str(fault["loc"][0])
    field = task.options.model_fields[name]
    if fault["type"] == "missing":
        return f"{task.name} needs {_flag_name(name)}: {field.description}"
    if fault["type"] in ("greater_than_equal", "less_than_equal"):
        return f"{_flag_name(name)} must be {_bounds(*_extremes(field))}, not {fault['input']}"
    reason = fault["msg"].removeprefix("Value error, ")
    return f"{_flag_name(name)} cannot be {fault['input']!r}: {reason[0].lower()}{reason[1:]}"


def _flag(param: Any) -> str:
    return max(param.opts, key=len)


def _flag_name(name: str) -> str:
    return f"--{name.replace('_', '-')}"
