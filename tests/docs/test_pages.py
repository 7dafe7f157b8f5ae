"""What the documents say exists: commands, options, tags, keys, files, modules, links."""

import importlib
import importlib.util
import re
import xml.etree.ElementTree as ET
from functools import cache
from typing import Any

import pytest
import typer
from documents import DOCUMENTS, ROOT, blocks, inline_code, prose, section, shell_commands
from test_readme import EXTRAS

from mts_driver.cli.main import SUBCOMMANDS, application

MTS = [
    pytest.param(command[1:], id=" ".join(command[:5]))
    for text in DOCUMENTS.values()
    for command in shell_commands(text)
    if command[0] == "mts"
]
OTHERS = {"--strict", "--help"}
"""Options of every command, or of other programs, that a text names."""
EXTERNAL = ("https://", "http://")


@cache
def click_commands() -> dict[str, Any]:
    return typer.main.get_command(application()).commands


def page(name: str) -> str:
    return DOCUMENTS[f"docs/pages/{name}"]


@pytest.mark.parametrize("words", MTS)
def test_commands_exist_with_their_options_and_arguments(words):
    name, *arguments = words
    assert name in SUBCOMMANDS
    click_commands()[name].make_context(name, list(arguments))


def test_a_command_that_does_not_exist_would_be_found():
    with pytest.raises(Exception, match="no-such-option"):
        click_commands()["run"].make_context("run", ["input.xml", "--no-such-option"])
    assert shell_commands("```bash\na b && c 'd e' \\\n f  # g\n```") == [
        ["a", "b"],
        ["c", "d e", "f"],
    ]
    assert len(MTS) > 80


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_options_in_the_text_exist(document):
    options = {o for c in click_commands().values() for p in c.params for o in p.opts}
    options |= {o for c in click_commands().values() for p in c.params for o in p.secondary_opts}
    for code in inline_code(DOCUMENTS[document]):
        if named := re.match(r"mts ([a-z]+)", code):
            assert named.group(1) in SUBCOMMANDS, code
        for option in re.findall(r"(?<!\S)--[A-Za-z][A-Za-z-]*", code):
            assert option in options | OTHERS, code


def test_every_command_is_in_the_guide():
    used = {c[1] for text in DOCUMENTS.values() for c in shell_commands(text) if c[0] == "mts"}
    assert used == set(SUBCOMMANDS)


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_lead_to_files_and_headings(document):
    text = prose((ROOT / document).read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(EXTERNAL):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        assert ROOT in target.resolve().parents
        if target.name == "commands.md" and anchor:  # filled in when the site is built
            assert anchor.removeprefix("mts-") in SUBCOMMANDS, link
        elif anchor:
            assert anchor in headings(target.read_text()), link


def headings(text: str) -> set[str]:
    """Anchors of the headings, as mkdocs and code forges make them."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_and_modules_exist(document):
    for code in inline_code(DOCUMENTS[document]):
        if re.fullmatch(r"(integrators|mts_driver|tests|docs|inputs|\.ci|\.github)/[\w./-]*", code):
            assert (ROOT / code).exists(), code
        if re.fullmatch(r"(integrators|mts_driver)(\.\w+)+", code):
            assert exists(code), code


def exists(dotted: str) -> bool:
    """Whether a name is that of a module, or of what is in one."""
    parent, _, name = dotted.rpartition(".")
    if importlib.util.find_spec(parent) is None:
        return False
    module = importlib.import_module(parent)
    return hasattr(module, name) or importlib.util.find_spec(dotted) is not None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_inputs_and_extras_that_commands_name_exist(document):
    for command in shell_commands(DOCUMENTS[document]):
        if command[:2] == ["python", "-m"] and command[2] != "venv":
            assert importlib.util.find_spec(command[2])
        if command[:2] == ["mts", "run"] and command[2].startswith("inputs/"):
            assert (ROOT / command[2]).is_file()
        for word in command:
            if extras := re.fullmatch(r"(?:\.|mts-driver)\[(.*)\]", word):
                assert set(extras.group(1).split(",")) <= set(EXTRAS)


def test_the_table_of_extras_is_that_of_the_package():
    rows = re.findall(r"^\| `([a-z0-9]+)` \|", page("guide/set-up.md"), re.MULTILINE)
    assert set(rows) == set(EXTRAS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_pieces_of_inputs_are_xml(document):
    for block in blocks(DOCUMENTS[document], "xml"):
        ET.fromstring(f"<input>{block}</input>")


def test_the_tags_of_the_splitting_exist():
    from integrators.ipi.plugin import InputRespaDynamics

    table = section(page("guide/input.md"), "The splitting")
    tags = re.findall(r"^\| `<(\w+)>`", table, re.MULTILINE)
    own = set(InputRespaDynamics.fields) - {"thermostat", "barostat"}
    assert set(tags) <= own
    # each tag that the plugin adds is there
    from ipi.inputs.motion.dynamics import InputDynamics

    assert own - set(InputDynamics.fields) <= set(tags)


def test_the_parameters_of_a_socket_are_those_that_a_run_knows():
    from mts_driver.runs.input.read import KNOWN_PARAMETERS

    table = section(page("guide/input.md"), "Two models")
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(KNOWN_PARAMETERS)


def test_batch_scripts_are_those_of_the_table():
    text = page("guide/cluster.md")
    scripts = {file.name for file in (ROOT / "inputs" / "cluster").iterdir()}
    assert set(re.findall(r"^\| `(\w+\.sbatch)`", text, re.MULTILINE)) == scripts
    submitted = [words for words in shell_commands(text) if words[0] == "sbatch"]
    assert len(submitted) > 2
    assert {words[2] for words in submitted} <= scripts


def test_the_keys_of_a_summary_exist():
    table = section(page("guide/run.md"), "The summary")
    keys = [
        k for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for k in inline_code(row)
    ]
    sources = ("summary", "measurements", "single_step_timing")
    code = "".join((ROOT / f"mts_driver/runs/measured/{n}.py").read_text() for n in sources)
    for key in keys:
        role, _, what = key.partition("_")
        made = f'f"{{role}}_{what}"' if role in ("teacher", "student") else f'"{key}"'
        assert made in code, key
    assert len(keys) > 10


def test_the_bounds_in_the_text_are_those_of_the_code():
    from integrators.ipi.guard import HOLE_EV_A
    from integrators.levels import DEFAULT_CLIP
    from mts_driver.drivers.ipi_socket.transport import SILENT_S
    from mts_driver.simulation.holes import HOLE_XH_A
    from mts_driver.validation.criteria import SIGNIFICANT, TOLERANCE_K
    from mts_driver.validation.resonance.judge import HEATING_K, VARIANCE

    check, works = page("guide/check.md"), page("how-it-works.md")
    assert f"by more than {TOLERANCE_K:g} K and by more than three standard errors" in check
    assert SIGNIFICANT == 3
    assert f"the driver says so after {SILENT_S} s" in page("guide/cluster.md")
    assert f"a heating of more than {HEATING_K:g} K" in check
    assert f"off by more than {VARIANCE:.0%}".replace("%", " %") in check
    assert f"larger than {HOLE_EV_A:g} eV/Å" in check
    assert f"above {HOLE_EV_A:g} eV/Å, or with an X–H bond beyond {HOLE_XH_A:g} Å" in works
    assert f"at most {DEFAULT_CLIP:.1f} eV/Å" in works
    assert f"{DEFAULT_CLIP:.4f} eV/Å" in page("guide/input.md")
