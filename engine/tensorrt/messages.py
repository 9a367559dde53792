"""Turns TensorRT's log into error sentences, because a call that fails only logs the reason and returns None."""

import logging
import re
from typing import Any

__all__ = ["kept_log", "parse_fault", "plain"]

logger = logging.getLogger(__name__)
_PLACE = re.compile(r"\s*In \w+ at \S+|\[\w+\.cpp:\d+: \w+\]\s*")
_PREFIX = re.compile(r"^.*?Error Code \d+: [\w ]+ \(")
# Messages that follow from another fault, or from the lack of a driver, which a build on a CPU does not need.
_NOISE = re.compile(r"catchCudaError|^Invalid Node - |^(Assertion failed: )?(false|creator && .*)$")
_TYPES = re.compile(r"In (validateTypes|checkType) at ")


def kept_log(library: Any) -> Any:
    """A logger for the library that keeps the messages of errors, in order, in its list `errors`."""

    class Kept(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            serious = severity in (library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR)
            if serious:
                self.errors.append(message)
            logger.log(logging.INFO if serious else logging.DEBUG, "%s", message)

    return Kept()


def plain(message: str) -> str:
    """A library's message without source files, codes and mere consequences; empty if nothing is left."""
    lines = [line.strip() for line in message.splitlines()]
    kept = [line for line in lines if line and not _NOISE.search(line)]
    if not kept:
        return ""
    text = _PREFIX.sub("", _PLACE.sub("", kept[0])).removeprefix("Assertion failed: ")
    text = re.sub(r"\s+", " ", text).strip()
    if text.count(")") > text.count("("):  # its opening bracket was in the prefix
        text = text.removesuffix(")")
    return text.rstrip(". ")


def parse_fault(parser: Any, title: str) -> str:
    """The reason why a parser refused a model, with the node, its operator and advice."""
    found = [parser.get_error(number) for number in range(parser.num_errors)]
    named = [error for error in found if error.node_operator()]
    error = (named or found)[-1]
    reasons = [reason for reason in map(plain, (error.desc(), *(other.desc() for other in found))) if reason]
    because = f": {reasons[0]}" if reasons else ""
    if not named:
        return f"{title} cannot read the graph{because}"
    name = error.node_name()
    node, because = f"the node {name!r} ({error.node_operator()})", because.replace(f": {name}: ", ": ", 1)
    if _TYPES.search(error.desc()):
        return (
            f"{node} mixes types, and {title} casts none by itself{because}; cast its inputs to one type in the model"
        )
    if "UNSUPPORTED" in str(error.code()) or not because:
        return f"{title} cannot run {node}{because}; export the model with other operators, or use the runtime 'onnx'"
    return f"{title} refuses {node}{because}; correct this node in the model"
