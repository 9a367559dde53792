"""Runs the command for `python -m zellige.cli`."""

from . import main

main()
