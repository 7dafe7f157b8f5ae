"""A sub-command of ``mts``: old names of options, help that fits any terminal, Ctrl-C."""

from typing import Any

import typer
from typer.core import TyperCommand

from mts_driver.cli.ending import status_asked_for
from mts_driver.cli.help_page import show_help
from mts_driver.cli.parameter_names import as_options
from mts_driver.errors import UserError

OLD_NAMES = {"--hmr": "--hydrogen-mass-Da", "--hydrogen-mass": "--hydrogen-mass-Da"}
"""Options that were renamed: they go on working, and only the new name is shown."""

CONTINUES = ("distill", "check", "resonance", "superres")
"""Commands that go on where they were when they are given again."""


class Command(TyperCommand):
    """What every sub-command has beside its options."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the command line, with renamed options under the names of today."""
        known = {name for parameter in self.params for name in parameter.opts}
        end = args.index("--") if "--" in args else len(args)
        for k, word in enumerate(args[:end]):
            name, equals, value = word.partition("=")
            if OLD_NAMES.get(name) in known:
                args[k] = f"{OLD_NAMES[name]}{equals}{value}"
        return super().parse_args(ctx, args)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Print the help, with the whole name of every option."""
        show_help(self, ctx)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; Ctrl-C ends it in a line, with the status that shells expect.

        Errors that name parameters of functions come out with the options of the command.
        """
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise UserError(as_options(str(error), self.params)) from error
        except (KeyboardInterrupt, Exception) as error:
            if status_asked_for(error) != 130:
                raise
            again = self.name in CONTINUES
            typer.echo(
                "stopped." + (" The same command continues where it was." if again else ""),
                err=True,
            )
            raise typer.Exit(130) from None
