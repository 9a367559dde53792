"""The table of systems; each system is a folder beside it."""

from functools import cache
from importlib import import_module

from zellige.errors import UnknownModelError

from .system import System

__all__ = ["SYSTEMS", "all_systems", "system_of"]

SYSTEMS = ("coco-gan", "key-patch", "onegan", "rearranger", "stylegan2")


@cache
def system_of(name: str) -> System:
    """The declaration of a system.

    Raises:
        UnknownModelError: no row has this name; the message names the rows.
    """
    if name not in SYSTEMS:
        raise UnknownModelError(f"this version cannot run {name} models; it runs {', '.join(SYSTEMS)}")
    found: System = import_module(f".{name.replace('-', '_')}", __package__).SYSTEM
    return found


def all_systems() -> list[System]:
    """The declarations of all systems."""
    return [system_of(name) for name in SYSTEMS]
