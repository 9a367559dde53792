"""The command `zellige`: it collects the verbs, and answers faults with a sentence and an exit status."""

import logging
import os
import sys
from contextlib import redirect_stdout, suppress
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from zellige.errors import ZelligeError

from .bench import bench
from .convert import convert
from .edit import WithEdit
from .evaluate import evaluate
from .export import export
from .flags import Verb
from .generate import generate_verb
from .models import info, models
from .panorama import panorama_verb
from .printing import LogLines, Output, say, visible
from .tasks import task_verbs
from .train import train

__all__ = ["main", "make_app"]

CLOSED, REFUSED, STOPPED = 1, 2, 130  # exit statuses; the first is for a pipe whose reader went away


def make_app() -> typer.Typer:
    """Make the command, with the verbs of all systems in the table."""
    app = typer.Typer(
        name="zellige",
        help="Run and train GANs that compose images out of parts.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    _add(app, "Look", info, models)
    _add(app, "Make", generate_verb())
    line = "Render a panorama of any size within a memory budget, or edit one."
    app.command(rich_help_panel="Make", short_help=line, cls=WithEdit)(panorama_verb())
    for task in task_verbs():
        app.command(task.name, help=task.help, short_help=task.line, rich_help_panel=task.panel)(task.run)
    _add(app, "Train and judge", train, evaluate)
    _add(app, "Export", convert, export)
    app.add_typer(bench, name="bench", rich_help_panel="Measure")
    return app


def _add(app: typer.Typer, panel: str, *verbs: Verb) -> None:
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)


def main() -> None:
    """Run the command; every error of ours is one sentence on stderr and exit status 2."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller has closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
    log = LogLines()
    logging.getLogger().addHandler(log)
    try:
        status = _status(sys.argv[1:])
    finally:
        logging.getLogger().removeHandler(log)
    sys.exit(status)


def _status(arguments: list[str]) -> int:
    """Run the command, report what went wrong, and return the exit status."""
    debug, output = "--debug" in arguments, Output(sys.stdout)
    try:
        with redirect_stdout(output):
            _run(arguments)
        return 0
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt as stop:
        _complain(str(stop) or "stopped")
        return STOPPED
    except typer.TyperException as error:
        if message := _usage(error):  # a command without arguments showed its help, and there is no more to say
            _complain(message)
        return REFUSED
    except ZelligeError as error:
        if debug:
            raise
        _complain(str(error))
        return REFUSED
    except OSError:
        if output.fault is None or debug:
            raise
        if isinstance(output.fault, BrokenPipeError):  # the reader closed the pipe because it has seen enough
            return CLOSED
        _complain(f"standard output cannot be written: {output.fault.strerror}; free some space or write elsewhere")
        return REFUSED


def _run(arguments: list[str]) -> None:
    command = typer.main.get_command(make_app())
    with command.make_context("zellige", arguments) as context:
        command.invoke(context)
    sys.stdout.flush()


def _options(
    context: typer.Context, debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False
) -> None:
    # OpenMP's threads spin while they wait for each other. By default they spin for so long that images take many times
    # as long beside another busy process. This count costs nothing when the process is alone. It must be set before
    # torch loads OpenMP. Benchmarks leave it to the person who measures.
    if context.invoked_subcommand != "bench" and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _complain(message: str) -> None:
    with suppress(OSError):  # standard error is closed, so nobody can be told
        say(f"zellige: {visible(message)}", error=True)


def _usage(error: typer.TyperException) -> str:
    """Say in a sentence of ours which option or argument the command does not take."""
    cause, param = error.__cause__, getattr(error, "param", None)
    text = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(cause, ValidationError) and param is not None:
        fault = cause.errors()[0]
        text = f"{max(param.opts, key=len)} cannot be {fault['input']!r}: {fault['msg']}"
    if not text:
        return ""
    context: Any = getattr(error, "ctx", None)
    path = "zellige" if context is None else context.command_path
    return f"{text[0].lower()}{text[1:]}; `{path} --help` shows what it takes"
