"""The command line itself: help at any width, names of options old and new."""

import re

import pytest
import typer

import mts_driver
from mts_driver.cli.command import OLD_NAMES
from mts_driver.cli.help_page import PANELS, panel_of
from mts_driver.cli.main import SUBCOMMANDS, application
from mts_driver.time_steps import free_bonds_warning

COMMANDS = typer.main.get_command(application()).commands


def help_text(name: str, width: int, monkeypatch, capsys) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    command = COMMANDS[name]
    with pytest.raises(typer.Exit), command.make_context(name, ["--help"]):
        pass
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_shows_the_whole_name_of_every_option(name, width, monkeypatch, capsys):
    text = help_text(name, width, monkeypatch, capsys)
    shown = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*(?![\w…-])", text))
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            assert {*parameter.opts, *parameter.secondary_opts} <= shown
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    assert not set(OLD_NAMES) & shown


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_shows_types_and_defaults_on_a_usual_terminal(name, monkeypatch, capsys):
    text = " ".join(help_text(name, 80, monkeypatch, capsys).replace("│", " ").split())
    for parameter in COMMANDS[name].params:
        hidden = parameter.param_type_name == "option" and parameter.hidden
        if not hidden and isinstance(parameter.default, (int, float)) and not parameter.is_flag:
            assert re.search(rf"{parameter.opts[-1]} <(int|float)> ", text)
            assert f"default: {parameter.default}" in text


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_option_is_in_a_panel(name):
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            assert panel_of(parameter) in PANELS, parameter.opts


def test_an_option_without_a_panel_is_shown_all_the_same(monkeypatch, capsys):
    monkeypatch.setattr("mts_driver.cli.help_page._PANEL_OF", {})
    assert "--baseline-steps" in help_text("run", 80, monkeypatch, capsys)


@pytest.mark.parametrize("old", ["--hmr", "--hydrogen-mass", "--hydrogen-mass-Da"])
@pytest.mark.parametrize("name", ["prepare", "check", "resonance"])
def test_old_names_go_on_working(name, old):
    needed = {"prepare": ["x", "-o", "y"], "check": ["x", "y"], "resonance": ["x"]}[name]
    for words in ([old, "2.5"], [f"{old}=2.5"]):
        found = COMMANDS[name].make_context(name, [*needed, *words]).params
        (value,) = (v for k, v in found.items() if k in ("hmr", "hydrogen_mass_Da"))
        assert value in (2.5, [2.5])
    # behind --, words are no options
    with pytest.raises(Exception, match=old):
        COMMANDS[name].make_context(name, [*needed, "--", old, "2.5"])


def test_an_old_name_means_nothing_to_a_command_without_the_new_one():
    with pytest.raises(Exception, match="--hmr"):
        COMMANDS["run"].make_context("run", ["input.xml", "--hmr", "2"])


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        application()(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"mts-driver {mts_driver.__version__}\n"


@pytest.mark.parametrize(
    ("outer_fs", "hydrogen_Da", "student", "said"),
    [
        (6.0, 4.0, True, None),
        (4.0, 1.008, True, None),
        (6.0, 1.008, True, "an outer step of 6 fs with hydrogens of 1.01 Da"),
        (2.0, 4.0, False, None),
        (6.0, 4.0, False, "single steps of 6 fs are too long"),
    ],
)
def test_steps_that_free_bonds_do_not_bear_are_told(outer_fs, hydrogen_Da, student, said):
    found = free_bonds_warning(outer_fs, hydrogen_Da, student=student)
    assert found is None if said is None else said in found
