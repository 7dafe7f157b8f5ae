"""What `import mts_driver` offers: all of it described, none of it loaded before it is used."""

import inspect
import subprocess
import sys
from dataclasses import is_dataclass

import pytest
import typer
from typer.main import get_command

import mts_driver
from mts_driver import api
from mts_driver.cli.main import application

FUNCTIONS = [
    *("load_potential", "simulate", "prepare", "run", "distill", "check", "resonance", "report")
]
COMMANDS = ("prepare", "run", "distill", "check", "resonance", "report")
OWN = {"quiet", "help"}
"""Options that are a terminal's."""


def in_a_new_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("import mts_driver; dir(mts_driver)", "torch ipi ase numpy numba matplotlib rich"),
        ("from mts_driver import UserError, cli, report", "torch ipi"),
        ("from mts_driver import simulate", "ipi matplotlib"),
    ],
)
def test_what_is_not_used_is_not_loaded(code, missing):
    loaded = in_a_new_process(f"{code}; import sys; print(*sys.modules)").stdout.split()
    assert not set(missing.split()) & set(loaded)


def test_all_names_are_there_and_no_others():
    assert set(FUNCTIONS) <= set(mts_driver.__all__)
    assert set(mts_driver.__all__) == set(api.__all__) <= set(dir(mts_driver))
    for name in mts_driver.__all__:
        assert getattr(mts_driver, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="nothing"):
        mts_driver.nothing  # noqa: B018
    # what type checkers see is what there is
    seen = inspect.getsource(mts_driver).split("import (")[1].split(")")[0]
    assert {name.strip() for name in seen.split(",") if name.strip()} == set(api.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_describe_every_parameter_what_they_return_and_what_they_raise(name):
    function = getattr(mts_driver, name)
    text = inspect.getdoc(function)
    described = text.split("Parameters\n----------\n")[1].split("\n\nReturns\n-------\n")[0]
    named = {
        word.strip()
        for line in described.splitlines()
        if not line.startswith(" ") and " : " in line
        for word in line.split(" : ")[0].split(",")
    }
    assert named == set(inspect.signature(function).parameters)
    assert "\nRaises\n------\n" in text and "UserError" in text
    hints = inspect.get_annotations(function)
    assert set(hints) == {*named, "return"}


@pytest.mark.parametrize(
    "name", [name for name in mts_driver.__all__ if name[0].isupper() and name != "UserError"]
)
def test_results_describe_every_attribute(name):
    found = getattr(mts_driver, name)
    fields = getattr(found, "_fields", None) or list(found.__dataclass_fields__)
    text = inspect.getdoc(found).split("Attributes\n----------\n")[1]
    for field in fields:
        assert field in text.replace(" : ", ", ").replace(",", " ").split(), field
    assert not is_dataclass(found) or found.__dataclass_params__.frozen


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_its_function_take_the_same(name):
    command = get_command(application()).commands[name]
    options = {p.name for p in command.params} - OWN
    parameters = set(inspect.signature(getattr(mts_driver, name)).parameters)
    assert options == parameters - {"tell", "report", "on_event", "command"}
    assert isinstance(command, typer.core.TyperCommand)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_its_function_have_the_same_defaults(name):
    command = get_command(application()).commands[name]
    parameters = inspect.signature(getattr(mts_driver, name)).parameters
    for option in command.params:
        if option.name in OWN:
            continue
        ours = parameters[option.name].default
        if option.default is None or ours is inspect.Parameter.empty:
            continue  # the command leaves it to the function, or it must be given
        assert (str(option.default), option.name) == (str(ours), option.name)
