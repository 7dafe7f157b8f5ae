"""Choices that cannot work together: each is refused, by its name, and nothing else is."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mts_driver.errors import UserError
from mts_driver.runs.input.asked import OPTIONS, TAGS, Asked
from mts_driver.runs.input.combinations import REFUSED, check
from mts_driver.runs.input.read import read_input
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.input.write import input_xml

PLAIN = {
    "teacher": "so3lr",
    "student": "student:water",
    "outer_fs": 4.0,
    "inner_fs": 1.0,
    "hydrogen_mass": 0.0,
    "temperature_K": 300.0,
    "friction_per_ps": 1.0,
    "steps": 100,
    "stride": 5,
    "seed": 1,
    "hydrogens": 4,
}
PRESSURE, DEVICE = {"pressure_bar": 1.0}, {"mode": "zmq", "device_steps": 5}
HELD = {"constrained": True}
SINGLE = {"student": None, "outer_fs": 1.0}
FEW = {"beads": 8, "teacher_beads": 2}
BY_PREPARE = {
    "constant pressure, isolated system": (PRESSURE | {"periodic": False}, "pressure_bar=1 for"),
    "constant pressure, held atoms": (PRESSURE | {"held": (1,)}, "that the structure holds"),
    "path integrals, heavy hydrogens": ({"beads": 4, "hydrogen_mass": 4.0}, "is physics"),
    "contraction, no student": (FEW | SINGLE, "teacher_beads=2 with student='none'"),
    "hydrogen friction, no hydrogens": (
        {"hydrogen_friction_per_ps": 20.0, "hydrogens": 0},
        "leave hydrogen_friction_per_ps out",
    ),
    "fixed bonds, path integrals": (HELD | {"beads": 4}, "no bonds of a fixed length"),
    "fixed bonds, constant pressure": (HELD | PRESSURE, "would change their lengths"),
    "fixed bonds, held atoms": (HELD | {"held": (1,)}, "or let all atoms go"),
    "fixed bonds, hydrogen friction": (
        HELD | {"hydrogen_friction_per_ps": 20.0},
        "must have one friction",
    ),
    "hydrogen friction, coloured noise": (
        {"high_pass": True, "hydrogen_friction_per_ps": 20.0},
        "a friction for every frequency",
    ),
    "what to do about a student, no student": (
        SINGLE | {"on_hole": "stop"},
        "on_hole='stop' with student='none'",
    ),
    "shortened outer step, one inner step": (
        {"outer_fs": 1.0, "on_hole": "shorten"},
        "shorter inner_fs",
    ),
    "ZeroMQ, no student": (SINGLE | {"mode": "zmq"}, "mode='zmq' with student='none'"),
    "whole outer steps, no driver for them": ({"device_steps": 5}, "give --mode zmq"),
    "whole outer steps, constant pressure": (DEVICE | PRESSURE, "device_steps=5 with pressure"),
    "whole outer steps, contraction": (DEVICE | FEW, "device_steps=5 with teacher_beads=2"),
    "whole outer steps, held atoms": (DEVICE | {"held": (1,)}, "leave device_steps out"),
    "several whole outer steps, exchange": (
        DEVICE | {"exchange_K": (310.0,)},
        "give device_steps=1",
    ),
    "velocities that are kept, path integrals": (
        {"keep_velocities": True, "beads": 4},
        "velocities='keep' with beads=4",
    ),
    "velocities that are kept, exchange": (
        {"keep_velocities": True, "exchange_K": (310.0,)},
        "velocities='keep' with exchange_K",
    ),
    "exchange of equal replicas": ({"exchange_K": (310.0, 300.0)}, "temperature (300 K)"),
}
NOT_BY_OPTIONS = {
    "fixed bonds, pressures",
    "fixed bonds, three levels",
    "constant pressure, teacher without a virial",
    "constant pressure, student without a virial",
    "constant pressure without a barostat",
    "constant volume, barostat",
    "constant energy, thermostat",
    "inner steps, stochastic cell rescaling",
    "contraction of the teacher alone",
    "hydrogen friction, constant energy",
    "shortened outer step, three levels",
    "whole outer steps, three levels",
    "whole outer steps, bias",
    "whole outer steps, another thermostat",
    "fixed bonds, another thermostat",
    "exchange of one replica",
    "exchange, threads",
}
WORKS = {
    "pressure": PRESSURE,
    "pressure, beads": PRESSURE | {"beads": 4},
    "pressure, contraction": PRESSURE | FEW,
    "pressure, exchange": PRESSURE | {"exchange_K": (310.0,)},
    "pressure, no student": PRESSURE | SINGLE,
    "pressure, hydrogen friction": PRESSURE | {"hydrogen_friction_per_ps": 20.0},
    "pressure, shorten": PRESSURE | {"on_hole": "shorten"},
    "pressure, zmq": PRESSURE | {"mode": "zmq"},
    "pressure, noise": PRESSURE | {"high_pass": True},
    "noise, device": DEVICE | {"high_pass": True},
    "noise, exchange": {"high_pass": True, "exchange_K": (310.0,)},
    "fixed bonds, device": DEVICE | HELD,
    "fixed bonds, exchange": HELD | {"exchange_K": (310.0,)},
    "fixed bonds, no student": HELD | SINGLE,
    "pressure, shm": PRESSURE | {"mode": "shm"},
    "isolated, beads": {"periodic": False, "beads": 4},
    "isolated, exchange": {"periodic": False, "exchange_K": (310.0,)},
    "isolated, device": {"periodic": False} | DEVICE,
    "held, exchange": {"held": (0,), "exchange_K": (310.0,)},
    "held, zmq": {"held": (0,), "mode": "zmq"},
    "held, shorten": {"held": (0,), "on_hole": "shorten"},
    "beads, no student": {"beads": 4} | SINGLE,
    "beads, exchange": {"beads": 4, "exchange_K": (310.0,)},
    "beads, shm": {"beads": 4, "mode": "shm"},
    "beads, device": {"beads": 4} | DEVICE,
    "beads, hydrogen friction": {"beads": 4, "hydrogen_friction_per_ps": 20.0},
    "contraction, zmq": FEW | {"mode": "zmq"},
    "contraction, shorten": FEW | {"on_hole": "shorten"},
    "device, exchange": DEVICE | {"device_steps": 1, "exchange_K": (310.0,)},
    "device, shorten": DEVICE | {"on_hole": "shorten"},
    "device, hydrogen friction": DEVICE | {"hydrogen_friction_per_ps": 20.0},
    "heavy hydrogens, exchange": {"hydrogen_mass": 4.0, "exchange_K": (310.0,)},
}


def names(asked):
    return {one.name for one in REFUSED if one.applies(asked)}


@pytest.mark.parametrize("name", BY_PREPARE)
def test_prepare_refuses(name):
    choices, said = BY_PREPARE[name]
    with pytest.raises(UserError, match=re.escape(said)) as error:
        RunSettings(**PLAIN | choices)
    assert "{" not in str(error.value)


def test_every_combination_is_in_one_of_the_lists():
    every = [one.name for one in REFUSED]
    assert len(set(every)) == len(every)
    assert {*BY_PREPARE, *NOT_BY_OPTIONS} == set(every) and not NOT_BY_OPTIONS & set(BY_PREPARE)
    assert set(OPTIONS) == set(TAGS)


@pytest.mark.parametrize("name", WORKS)
def test_prepare_and_run_leave_what_works_alone(tmp_path, name):
    choices = WORKS[name]
    file = written(tmp_path, choices)
    run = read_input(file)
    assert {d.needs_virial for d in run.drivers} == {"pressure_bar" in choices}


def test_models_are_asked_for_a_virial_at_constant_pressure_only():
    for choices in ({}, PRESSURE):
        protocol = RunSettings(**PLAIN | choices)
        protocol.require_virials(True, True)
        for pair, who in (((False, True), "teacher"), ((True, False), "student")):
            if choices:
                with pytest.raises(UserError, match=f"with a {who} that gives no virial"):
                    protocol.require_virials(*pair)
            else:
                protocol.require_virials(*pair)


@pytest.mark.parametrize("words", [OPTIONS, TAGS], ids=["options", "tags"])
@pytest.mark.parametrize("refused", REFUSED, ids=lambda one: one.name)
def test_every_message_is_complete_in_both_languages(words, refused):
    asked = Asked(words=words, pressure=1.0, replicas=("300 K", "300 K"))
    always = replace(refused, applies=lambda _: True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mts_driver.runs.input.combinations.REFUSED", (always,))
        with pytest.raises(UserError) as error:
            check(asked)
    assert str(error.value).endswith(".") and "{" not in str(error.value)


# --- inputs


def written(folder: Path, choices, *, masses=None, edit=()):
    """Write an input as `mts prepare` does, edited, and return its path."""
    protocol = RunSettings(**PLAIN | choices)
    found = input_xml(protocol, folder)
    for old, new in edit:
        assert old in found, old
        found = found.replace(old, new)
    atoms = Atoms("OHHOHH", np.eye(6)[:, :3] + np.arange(6)[:, None], cell=[9] * 3, pbc=True)
    atoms.pbc = protocol.periodic
    if masses is not None:
        atoms.set_masses(masses)
    write(folder / "start.extxyz", atoms)
    (folder / "input.xml").write_text(found)
    return folder / "input.xml"


NPT = ("<dynamics mode='nvt'", "<dynamics mode='npt'")
NVE = ("<dynamics mode='nvt'", "<dynamics mode='nve'")
TEACHER_AND_MORE = "<force forcefield='teacher'>"
MIDDLE = (
    ("<mts_weights> [ 1, 0 ]", "<mts_weights> [ 1, 0, 0 ]"),
    ("[ -1, 1 ] </mts_weights> </force>", "[ 0, -1, 1 ] </mts_weights> </force>\n<force "
     "forcefield='middle'> <mts_weights> [ -1, 1, 0 ] </mts_weights> </force>"),
    ("<nmts> [ 1, 4 ]", "<nmts> [ 1, 2, 2 ]"),
)  # fmt: skip
BAROSTAT = "<barostat mode='isotropic'><tau> 100 </tau></barostat></dynamics>"
FIXED = "<fixatoms>[0]</fixatoms>"
CONSTRAIN = ("<force_clip", "<constrain> c.txt </constrain><force_clip")
BY_RUN = {
    "constant pressure, isolated system": (
        PRESSURE,
        [("device: cpu", "device: cpu, periodic: no")],
        "constant pressure (<dynamics mode='npt'>) for an isolated system",
    ),
    "constant pressure, held atoms": (
        PRESSURE,
        [("<motion mode='dynamics'>", "<motion mode='dynamics'><fixatoms>[0]</fixatoms>")],
        "with <fixatoms>",
    ),
    "constant pressure without a barostat": ({}, [NPT], "without a <barostat>"),
    "constant volume, barostat": ({}, [("</dynamics>", BAROSTAT)], "write mode='npt'"),
    "constant energy, thermostat": ({}, [NVE], "write mode='nvt'"),
    "inner steps, stochastic cell rescaling": (
        PRESSURE,
        [("mode='isotropic'", "mode='stochastic-rescaling'")],
        "would call the teacher at every inner step",
    ),
    "contraction, no student": (
        SINGLE | {"beads": 4},
        [(TEACHER_AND_MORE, "<force forcefield='teacher' nbeads='2'>")],
        "<force nbeads='2'> with no student",
    ),
    "contraction of the teacher alone": (
        {"beads": 4},
        [(TEACHER_AND_MORE, "<force forcefield='teacher' nbeads='2'>")],
        "the teacher is on 2 beads and - student on 4",
    ),
    "hydrogen friction, constant energy": (
        {"hydrogen_friction_per_ps": 20.0},
        [NVE, ("<thermostat mode='langevin'", "<thermostat mode=''")],
        "<hydrogen_friction> is for ensembles",
    ),
    "fixed bonds, path integrals": ({}, [CONSTRAIN, ("nbeads='1'", "nbeads='4'")], "<constrain>"),
    "fixed bonds, constant pressure": (PRESSURE, [CONSTRAIN], "<constrain> with constant"),
    "fixed bonds, held atoms": (
        {},
        [
            CONSTRAIN,
            ("<motion mode='dynamics'>", "<motion mode='dynamics'><fixatoms>[0]</fixatoms>"),
        ],
        "<constrain> with <fixatoms>",
    ),
    "fixed bonds, hydrogen friction": (
        {"hydrogen_friction_per_ps": 20.0},
        [CONSTRAIN],
        "<constrain> with <hydrogen_friction>",
    ),
    "fixed bonds, another thermostat": (
        {},
        [CONSTRAIN, ("<thermostat mode='langevin'", "<thermostat mode='pile_g'")],
        "write <thermostat mode='langevin'>",
    ),
    "fixed bonds, pressures": (
        {},
        [CONSTRAIN, ("conserved{", "pressure_cv{bar}, conserved{")],
        "pressures, stresses or virials",
    ),
    "fixed bonds, three levels": ({}, [CONSTRAIN, *MIDDLE], "with three levels"),
    "hydrogen friction, coloured noise": (
        {"high_pass": True},
        [("<force_clip", "<hydrogen_friction> 1 </hydrogen_friction><force_clip")],
        "<hydrogen_friction> with coloured noise",
    ),
    "what to do about a student, no student": (
        SINGLE,
        [("<force_clip", "<on_hole> stop </on_hole><force_clip")],
        "<on_hole> stop with no student",
    ),
    "shortened outer step, one inner step": (
        {"on_hole": "shorten"},
        [("<nmts> [ 1, 4 ]", "<nmts> [ 1, 1 ]")],
        "write <nmts> [1, n]",
    ),
    "shortened outer step, three levels": (
        {"on_hole": "shorten"},
        MIDDLE,
        "with three levels, whose outer step",
    ),
    "whole outer steps, no driver for them": (
        {},
        [("<force_clip", "<device_steps> 5 </device_steps><force_clip")],
        "<device_steps> 5 without a driver",
    ),
    "whole outer steps, constant pressure": (
        DEVICE,
        [NPT, ("</dynamics>", BAROSTAT)],
        "<device_steps> 5 with constant pressure",
    ),
    "whole outer steps, held atoms": (
        DEVICE,
        [("<motion mode='dynamics'>", "<motion mode='dynamics'><fixatoms>[0]</fixatoms>")],
        "remove <device_steps>",
    ),
    "several whole outer steps, exchange": (
        DEVICE | {"device_steps": 1, "exchange_K": (310.0,)},
        [("<device_steps> 1 ", "<device_steps> 2 ")],
        "write <device_steps> 1.",
    ),
    "whole outer steps, three levels": (DEVICE, MIDDLE, "with three levels: a driver has two"),
    "whole outer steps, bias": (
        DEVICE,
        [("</ensemble>", "<bias><force forcefield='b'></force></bias></ensemble>")],
        "with a <bias>",
    ),
    "whole outer steps, another thermostat": (
        DEVICE,
        [("<thermostat mode='langevin'", "<thermostat mode='svr'")],
        "with <thermostat mode='svr'>",
    ),
    "exchange of equal replicas": (
        {"exchange_K": (310.0,)},
        [("'kelvin'> 310 ", "'kelvin'> 300 ")],
        "differ in nothing",
    ),
    "exchange of one replica": (
        {},
        [("</simulation>", "<smotion mode='remd'/></simulation>")],
        "with one <system>",
    ),
    "exchange, threads": (
        {"exchange_K": (310.0,)},
        [("threading='False'", "threading='True'")],
        "threading='False'",
    ),
    "path integrals, heavy hydrogens": (
        {},
        [("nbeads='1'", "nbeads='4'")],
        "path integrals (nbeads='4') with mass moved to hydrogens",
    ),
    "hydrogen friction, no hydrogens": (
        {"hydrogen_friction_per_ps": 20.0},
        [("start.extxyz", "argon.extxyz")],
        "without a hydrogen that moves",
    ),
}


@pytest.mark.parametrize("name", BY_RUN)
def test_run_refuses(tmp_path, name):
    choices, edit, said = BY_RUN[name]
    masses = [10.0, 4.0, 4.0] * 2 if name == "path integrals, heavy hydrogens" else None
    file = written(tmp_path, choices, edit=edit, masses=masses)
    write(tmp_path / "argon.extxyz", Atoms("Ar2", [[0, 0, 0], [0, 0, 4]], cell=[9] * 3, pbc=True))
    if "isolated" in name:
        atoms = Atoms("OH", np.eye(2, 3), pbc=False)
        write(tmp_path / "start.extxyz", atoms)
    if "held" in name:
        edited = file.read_text()
        assert "fixatoms" in edited
    with pytest.raises(UserError, match=re.escape(said)) as error:
        read_input(file)
    assert "{" not in str(error.value)


def test_every_combination_that_an_input_can_ask_for_is_refused_by_run():
    after_loading = {name for name in NOT_BY_OPTIONS if "without a virial" in name}
    only_options = {"ZeroMQ, no student", "whole outer steps, contraction"}
    # <velocities> of an input may well be those of every bead or replica
    only_options |= {one.name for one in REFUSED if one.name.startswith("velocities")}
    assert {*BY_RUN, *after_loading, *only_options} == {one.name for one in REFUSED}


def test_contraction_under_whole_outer_steps_is_refused_in_an_input_too(tmp_path):
    protocol = RunSettings(**PLAIN | FEW | {"mode": "zmq"})
    root = ET.fromstring(
        input_xml(protocol, tmp_path).replace(
            "<force_clip", "<device_steps> 5 </device_steps><force_clip"
        )
    )
    system = root.find("system")
    (asked,) = Asked.of_input(
        root,
        system,
        [system],
        weights={"teacher": [1, 0], "student": [-1, 1]},
        mode="zmq",
        both_in_one=True,
    )
    assert names(asked) == {"whole outer steps, contraction"}
