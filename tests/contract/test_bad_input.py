"""Bad input: an error that says what to do, an exit code that is not 0, nothing overwritten."""

import socket
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from running import TEACHER, here, make_run, toy_water

from mts_driver.errors import UserError
from mts_driver.runs.input.read import check_ipi_version

STUDENTS = Path(__file__).parents[2] / "mts_driver" / "students"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(folder: Path, *arguments: object) -> str:
    """Run a command that must fail, leave all files as they were, and return its message."""
    before = contents(folder)
    done = here(*arguments)
    assert done.returncode not in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    new = {name for name in after if not name.endswith(".log")} - set(before)
    assert not new, f"made {new}"
    return done.stderr


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[ 1, 6 ]", "[ 6 ]", ["<nmts> [6] has 1 level(s)", "[1, 0] for the teacher"]),
        ("[ -1, 1 ]", "[ -1, 1, 0 ]", ["wrong: student", "[-1, 1] for the student"]),
        ("[ -1, 1 ]", "[ 0, 1 ]", ["add up to|sum up", "[-1, 1]"]),
        ("[ -1, 1 ]", "[ -1, 0.5 ]", ["do not sum up", "student: [-1.0, 0.5]"]),
        ("[ 1, 0 ]", "[ 1, -1 ]", ["do not sum up", "one of them 1"]),
        ("[ 1, 0 ]", "[ one, 0 ]", ["are not numbers"]),
        ("> start.extxyz <", "> none.extxyz <", ["'none.extxyz'", "does not exist"]),
        ("model: ase:toy_calculators:ToyWater,", "model: magic,", ["'magic'", "use so3lr"]),
        (
            "model: ase:toy_calculators:ToyWater,",
            "model: student:none.safetensors,",
            ["none.safetensors", "copy it there"],
        ),
        (
            "model: ase:toy_calculators:ToyWater,",
            "model: classical:none.json,",
            ["'classical:none.json', which is no file", "correct the model"],
        ),
        ("device: cpu", "devise: cpu", ["devise", "device"]),
        ("<simulation ", "<simulation", ["not valid XML"]),
        ("mode='unix'", "mode='tcp'", ["mode='tcp'", "unix, inet, shm"]),
        ("splitting='respa-baoab'", "splitting='leapfrog'", ["leapfrog"]),
        ("model: ase:toy_calculators:ToyWater,", "model: ase:toy:X,", ["cannot import 'toy'"]),
    ],
)
def test_a_broken_input_is_refused(tmp_path, old, new, words):
    input_xml = make_run(tmp_path, outer_fs=6.0)
    text = input_xml.read_text()
    assert old in text
    input_xml.write_text(text.replace(old, new, 1))
    message = refused(tmp_path, "run", input_xml, "--baseline-steps", 0)
    for word in words:
        assert any(one in message for one in word.split("|")), message


def test_a_missing_input_and_no_checkpoint(tmp_path):
    assert "mts prepare" in refused(tmp_path, "run", tmp_path / "input.xml")
    input_xml = make_run(tmp_path)
    assert "no complete checkpoint" in refused(tmp_path, "run", input_xml, "--restart")


def test_nan_in_the_start(tmp_path):
    input_xml = make_run(tmp_path)
    start = tmp_path / "start.extxyz"
    lines = start.read_text().splitlines()
    lines[3] = "H nan 0.0 0.0 4.0 1.008"
    start.write_text("\n".join(lines) + "\n")
    assert "position of atom 1 is not finite" in refused(tmp_path, "run", input_xml)
    message = refused(tmp_path, "prepare", start, "-o", tmp_path / "new", "--teacher", TEACHER)
    assert "position of atom 1 is not finite" in message


def test_a_port_in_use(tmp_path):
    with socket.socket() as server:
        server.bind(("localhost", 0))
        server.listen()
        port = server.getsockname()[1]
        input_xml = make_run(tmp_path)
        root = ET.parse(input_xml)
        node = next(root.iter("ffsocket"))
        node.set("mode", "inet")
        node.find("address").text = "localhost"
        ET.SubElement(node, "port").text = str(port)
        root.write(input_xml)
        message = refused(tmp_path, "run", input_xml)
    assert f"localhost:{port} is in use" in message and "<port>" in message


@pytest.mark.parametrize("version", ["3.0.2", "3.1.9", "3.2.0", "3.4.0", "4.0"])
def test_an_ipi_that_was_never_tested(version):
    with pytest.raises(UserError, match=rf"i-PI {version} is not supported.*pip install"):
        check_ipi_version(version)


@pytest.mark.parametrize("version", ["3.3.0", "3.3.1", "3.3.2"])
def test_an_ipi_that_was_tested(version):
    check_ipi_version(version)


def test_prepare_refuses_what_it_cannot_do(tmp_path):
    water = tmp_path / "water.extxyz"
    toy_water().write(water)
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("x")
    common = ("--teacher", TEACHER, "--student", TEACHER)

    def message(*arguments: object, structure: Path = water) -> str:
        return refused(tmp_path, "prepare", structure, *common, *arguments)

    assert "not empty" in message("-o", full)
    assert "does not exist" in message("-o", tmp_path / "a", structure=tmp_path / "none.xyz")
    assert "no multiple" in message("-o", tmp_path / "a", "--outer-fs", 5, "--inner-fs", 2)
    assert "--hydrogen-mass-Da" in message("-o", tmp_path / "a", "--hydrogen-mass-Da", 9)
    assert "--temperature-K" in message("-o", tmp_path / "a", "--temperature-K", 0)
    assert "mts distill" in message("-o", tmp_path / "a", "--student", "no/such.safetensors")
    assert not (tmp_path / "a").exists()


def test_an_element_that_the_teacher_does_not_know(tmp_path):
    file = tmp_path / "gold.extxyz"
    Atoms("Au2", [[0, 0, 0], [2.5, 0, 0]], cell=np.eye(3) * 12, pbc=True).write(file)
    message = refused(
        *(tmp_path, "prepare", file, "-o", tmp_path / "a", "--hydrogen-mass-Da", 0),
        *("--student", "ase:ase.calculators.emt:EMT"),
    )
    assert "Au" in message and "SO3LR" in message


@pytest.mark.skipif(not list(STUDENTS.glob("*.safetensors")), reason="no packaged student yet")
def test_a_student_for_other_elements(tmp_path):
    file = tmp_path / "methanol.extxyz"
    Atoms("CO", [[0, 0, 0], [1.2, 0, 0]], cell=np.eye(3) * 12, pbc=True).write(file)
    message = refused(
        tmp_path,
        "prepare",
        file,
        "-o",
        tmp_path / "a",
        "--teacher",
        TEACHER,
        "--hydrogen-mass-Da",
        0,
    )
    assert "C" in message and "student" in message


def test_serve_says_what_is_missing(tmp_path):
    structure = tmp_path / "start.extxyz"
    toy_water().write(structure)
    message = refused(tmp_path, "serve", "magic", "--address", "x", "--structure", structure)
    assert "potential 'magic' is not known" in message
    message = refused(
        tmp_path, "serve", "ase:ase.calculators.emt:EMT", "--address", "x", "--structure", "none"
    )
    assert "does not exist" in message
    message = refused(
        tmp_path,
        *("serve", "ase:ase.calculators.emt:EMT", "--address", tmp_path / "x"),
        *("--structure", structure, "--timeout", 0.2),
    )
    assert "no i-PI server" in message
