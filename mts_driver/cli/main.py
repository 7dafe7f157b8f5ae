"""Entry point of the ``mts`` command."""

import importlib
import os
from typing import Annotated

import typer

from mts_driver import __version__
from mts_driver.cli.command import Command
from mts_driver.cli.ending import ended_in_a_sentence
from mts_driver.processes import use_threads

HELP = (
    "Molecular dynamics with an expensive neural network potential at several times its speed: "
    "multiple time steps with a distilled student, under i-PI."
)

SUBCOMMANDS = (
    *("prepare", "run", "report", "serve", "distill", "check"),
    *("resonance", "refine", "superres", "molecules", "bench", "keys", "doctor"),
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"mts-driver {__version__}")
        raise typer.Exit


def application() -> typer.Typer:
    """Return ``mts`` with all its sub-commands."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)

    @app.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=_show_version, is_eager=True, help="Show the version."
            ),
        ] = False,
    ) -> None:
        pass

    for name in SUBCOMMANDS:
        module = importlib.import_module(f"mts_driver.cli.{name}")
        app.command(name, cls=Command)(getattr(module, name))
    return app


def main() -> None:
    """Run ``mts``; what a user can put right ends in a sentence and status 2."""
    if "OMP_NUM_THREADS" in os.environ:
        use_threads()
    with ended_in_a_sentence():
        application()()
