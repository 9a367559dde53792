"""The command as `python -m zellige.cli`."""

from . import main

main()
