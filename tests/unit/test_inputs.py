"""The XML that ``mts prepare`` writes for each ensemble, and choices that make no sense."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from mts_driver import prepare
from mts_driver.errors import UserError
from mts_driver.runs.input.read import read_input
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.input.write import input_xml
from mts_driver.thermostats import high_friction, high_pass_noise

WATER64 = Path(__file__).parents[2] / "inputs/water64/start.extxyz"

PLAIN = {
    "teacher": "so3lr",
    "student": "student:water",
    "outer_fs": 6.0,
    "inner_fs": 1.0,
    "hydrogen_mass": 0.0,
    "temperature_K": 300.0,
    "friction_per_ps": 1.0,
    "steps": 100,
    "stride": 5,
    "seed": 1,
}


def xml(**choices):
    return ET.fromstring(input_xml(RunSettings(**PLAIN | choices), Path("run")))


def text(root, path):
    return (root.findtext(path) or "").strip()


def test_the_plain_input_has_no_tag_that_is_not_needed():
    root = xml()
    for tag in ("hydrogen_friction", "on_hole", "barostat", "smotion", "batch_size"):
        assert root.find(f".//{tag}") is None
    assert text(root, ".//nmts") == "[ 1, 6 ]"


def test_hydrogen_friction_and_safety_net():
    root = xml(hydrogen_friction_per_ps=20.0, on_hole="shorten")
    friction = root.find(".//hydrogen_friction")
    assert friction.get("units") == "inverseps" and float(friction.text) == 20.0
    assert text(root, ".//on_hole") == "shorten"


def test_constant_pressure():
    root = xml(pressure_bar=1.0)
    assert root.find(".//dynamics").get("mode") == "npt"
    assert float(text(root, ".//ensemble/pressure")) == 1.0
    assert root.find(".//barostat").get("mode") == "isotropic"
    assert "volume{angstrom3}" in text(root, ".//properties")


def test_contracted_path_integral():
    root = xml(beads=8, teacher_beads=2)
    forces = [
        (f.get("forcefield"), f.get("nbeads"), text(f, "mts_weights")) for f in root.iter("force")
    ]
    assert forces == [
        ("teacher", "2", "[ 1, 0 ]"),
        ("student", "2", "[ -1, 0 ]"),
        ("student", None, "[ 0, 1 ]"),
    ]
    batches = {s.get("name"): text(s, "batch_size") for s in root.iter("ffsocket")}
    assert batches == {"teacher": "2", "student": "8"}
    assert root.find(".//thermostat").get("mode") == "pile_l"


def test_replica_exchange_has_a_system_for_each_temperature():
    root = xml(exchange_K=(325.0, 350.0))
    systems = root.findall("system")
    assert [s.get("prefix") for s in systems] == ["replica0", "replica1", "replica2"]
    assert [float(text(s, ".//temperature")) for s in systems] == [300.0, 325.0, 350.0]
    assert root.find("smotion").get("mode") == "remd"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"hydrogen_friction_per_ps": 0.5}, "hydrogen_friction_per_ps=0.5: give at least"),
        ({"beads": 0}, "beads=0"),
        ({"beads": 4, "teacher_beads": 5}, "teacher_beads=5: give 1 to beads=4"),
        ({"beads": 4, "hydrogen_mass": 4.0}, "the mass of hydrogens is physics"),
        (
            {"beads": 4, "teacher_beads": 2, "student": None, "outer_fs": 1.0},
            "contraction needs a student",
        ),
        ({"exchange_K": (0.0,)}, "exchange_K=0"),
        ({"on_hole": "panic"}, "use log, stop or shorten"),
        ({"friction_per_ps": 0.0}, "friction_per_ps=0"),
        ({"outer_fs": 6.5}, "no multiple of inner_fs"),
    ],
)
def test_choices_that_make_no_sense_are_refused(choices, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        RunSettings(**PLAIN | choices)


@pytest.mark.parametrize(("few", "size"), [(6, "2"), (8, "8"), (3, "")])
def test_an_ffdirect_has_batches_that_contraction_fills(few, size):
    root = xml(mode="zmq", beads=8, teacher_beads=few)
    assert text(root.find("ffdirect"), "batch_size") == size


def test_only_teacher_and_student_share_a_driver(tmp_path):
    protocol = RunSettings(**PLAIN, mode="zmq", device_steps=5)
    found = input_xml(protocol, tmp_path)
    (tmp_path / "start.extxyz").write_text('1\nLattice="9 0 0 0 9 0 0 0 9"\nH 0 0 0\n')
    file = tmp_path / "input.xml"
    file.write_text(found)
    run = read_input(file)
    assert [driver.name for driver in run.drivers] == ["teacher", "student"]
    assert run.drivers[0].address == run.drivers[1].address
    file.write_text(found.replace("[ 1, 0 ]", "[ 0, 1 ]").replace("[ -1, 1 ]", "[ 1, 0 ]"))
    with pytest.raises(UserError, match="only the teacher"):
        read_input(file)


def test_more_friction_on_fast_motion_is_in_the_matrix(tmp_path):
    """And it is refused where there is no coloured noise to have it."""
    assert high_friction(None, high_pass=True) == 50.0
    for wrong, said in ((0.0, "above 0"), (float("inf"), "above 0")):
        with pytest.raises(UserError, match=said):
            high_friction(wrong, high_pass=True)
    with pytest.raises(UserError, match="this run has white noise: give thermostat='high-pass'"):
        prepare(WATER64, tmp_path / "r", outer_fs=6.0, high_friction_per_ps=200.0)
    matrices = [
        text(xml(high_pass=True, high_friction_per_ps=value), ".//A") for value in (50.0, 200.0)
    ]
    assert matrices[0] == text(xml(high_pass=True), ".//A") != matrices[1]
    usual, strong = high_pass_noise(1.0), high_pass_noise(1.0, 200.0)
    fast, slow = np.array([0.5]), np.array([0.0])
    assert strong.friction(slow)[0] == pytest.approx(1e-3) == usual.friction(slow)[0]
    assert strong.friction(fast) > 3.9 * usual.friction(fast) - 3e-3
