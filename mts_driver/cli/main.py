"""Entry point of the ``mts`` command."""

import importlib
import sys

import typer
from rich.console import Console

from mts_driver.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Molecular dynamics with an expensive neural network potential at several times its "
    "speed: multiple time steps with a distilled student, under i-PI.",
)

SUBCOMMANDS = (
    *("prepare", "run", "report", "serve", "distill", "check"),
    *("resonance", "molecules", "bench", "keys"),
)


def main() -> None:
    """Run ``mts``; a `UserError` is printed without a traceback and exits with status 2."""
    for name in SUBCOMMANDS:
        module = importlib.import_module(f"mts_driver.cli.{name}")
        app.command(name)(getattr(module, name))
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
