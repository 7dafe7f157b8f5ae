"""The ``mts`` command: one file a sub-command."""

from mts_driver.cli.main import main

__all__ = ["main"]
