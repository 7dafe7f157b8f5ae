"""Messages of the library in the words of the command line."""

import pytest
import typer
from typer.main import get_command

from mts_driver.cli.command import Command
from mts_driver.cli.main import application
from mts_driver.cli.parameter_names import as_options
from mts_driver.errors import UserError


def options_of(name):
    return get_command(application()).commands[name].params


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        (
            "outer_fs=4.5 is no multiple of inner_fs=1: use others.",
            "--outer-fs 4.5 is no multiple of --inner-fs 1: use others.",
        ),
        ("use a shorter outer_fs.", "use a shorter --outer-fs."),
        ("temperature_K=-1: give more", "--temperature-K -1: give more"),
        ("velocities='keep' with beads=4: no", "--velocities keep with --beads 4: no"),
        ("student='my file' is none", "--student 'my file' is none"),
        ("or minimise=False.", "or --no-minimise."),
        ("give force=True, or (equilibrate_ps=0).", "give --force, or (--equilibrate-ps 0)."),
        ("output='run/a-b.c' is a file", "--output run/a-b.c is a file"),
        # words, names within others, XML and commands stay
        ("the student and steps of the mode", "the student and steps of the mode"),
        ("my_outer_fs=1, outer_fs_max", "my_outer_fs=1, outer_fs_max"),
        ("<dynamics mode='nvt'> for `x device=cpu`", "<dynamics mode='nvt'> for `x device=cpu`"),
        ("ase:a:B?device=cuda&steps=1", "ase:a:B?device=cuda&steps=1"),
        ("picoseconds=1", "picoseconds=1"),  # of another command
    ],
)
def test_parameters_become_the_options_of_the_command(said, printed):
    assert as_options(said, options_of("prepare")) == printed


def test_names_of_functions_count_where_options_have_others():
    assert as_options("picoseconds=1 is short", options_of("check")) == "--ps 1 is short"
    assert as_options("json_file x.json exists", options_of("check")) == "--json x.json exists"


def test_a_command_says_what_its_function_raises():
    app = typer.Typer()

    @app.command(cls=Command)
    def go(outer_fs: float = 1.0) -> None:
        raise UserError(f"outer_fs={outer_fs:g}: no.")

    with pytest.raises(UserError, match=r"^--outer-fs 1: no\.$"):
        app([], standalone_mode=False)
