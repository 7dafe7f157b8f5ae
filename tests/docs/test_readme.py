"""What the documents say exists: commands, options, files, and the set-up that CI runs."""

import importlib.util
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from mts_driver.cli.main import SUBCOMMANDS, application

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = ("README.md", "CONTRIBUTING.md", "docs/structures.md")
DOCUMENTS = {name: (ROOT / name).read_text() for name in PAGES}


def shell_commands(text: str) -> list[list[str]]:
    """Words of every command in the bash blocks, with those chained by && apart."""
    lines = [
        line
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [word for word in words if word]


MTS = [
    pytest.param(command[1:], id=" ".join(command[:5]))
    for text in DOCUMENTS.values()
    for command in shell_commands(text)
    if command[0] == "mts"
]


def click_command(name: str) -> Any:
    return typer.main.get_command(application()).commands[name]


def setup_commands() -> list[str]:
    return re.findall(r"^pip install .*$", README, re.MULTILINE)


@pytest.mark.parametrize("words", MTS)
def test_commands_exist_with_their_options_and_arguments(words):
    name, *arguments = words
    assert name in SUBCOMMANDS
    click_command(name).make_context(name, list(arguments))


def test_a_command_that_does_not_exist_would_be_found():
    with pytest.raises(Exception, match="no-such-option"):
        click_command("run").make_context("run", ["input.xml", "--no-such-option"])
    assert shell_commands("```bash\na b && c 'd e' \\\n f  # g\n```") == [
        ["a", "b"],
        ["c", "d e", "f"],
    ]
    assert len(MTS) > 8


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_the_text_exist(document):
    named = re.findall(r"`mts ([a-z]+)", DOCUMENTS[document])
    assert set(named) <= set(SUBCOMMANDS)


def test_every_command_is_in_the_readme():
    used = {command[1] for command in shell_commands(README) if command[0] == "mts"}
    assert {"distill", "prepare", "run", "report", "serve"} <= used


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_linked_files_exist(document):
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text())
    for link in links:
        if not link.startswith("https://"):
            assert (ROOT / link.partition("#")[0]).exists(), link


def test_modules_and_inputs_that_commands_name_exist():
    for command in shell_commands(README):
        if command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(command[2])
        if command[:2] == ["mts", "run"] and command[2].startswith("inputs/"):
            assert (ROOT / command[2]).is_file()


def test_there_are_exactly_two_set_up_commands():
    first, second = setup_commands()
    assert first.endswith("&& mts run inputs/water64/input.xml")
    assert second.endswith("&& pytest")
    for command in (first, second):
        assert command.startswith("pip install torch==2.13.0 && pip install -c constraints.txt -e ")
        assert "index-url" not in command


def test_extras_of_the_set_up_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for command in setup_commands():
        (named,) = re.findall(r"'\.\[([a-z0-9,]+)\]'", command)
        assert set(named.split(",")) <= set(extras)


def test_ci_runs_the_second_set_up_command():
    script = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"^setup=\$\((.*)\)$", script, re.MULTILINE)
    assert extract is not None
    found = subprocess.run(
        ["bash", "-c", extract.group(1)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == setup_commands()[1]
    assert '\neval "$setup"\n' in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    for tool in ("ruff check .", "ruff format --check .", "mypy"):
        assert f"\n{tool}\n" in script


def test_constraints_pin_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][e] for e in ("so3lr", "analysis", "general", "dev")]
    wanted = [line for group in (project["dependencies"], *extras) for line in group]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for requirement in wanted:
        assert re.split(r"[^A-Za-z0-9_-]", requirement)[0] in pins
    # a suffix such as +cpu would refuse every other build
    assert not [version for version in pins.values() if "+" in version]
