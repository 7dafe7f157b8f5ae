"""What the start of a run says is what the input's models see, or the input is refused."""

import re
from pathlib import Path

import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from mts_driver.errors import UserError
from mts_driver.runs.input.read import read_input
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.input.write import input_xml
from mts_driver.structures.reading.ipi_labels import element_of

WATER = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[9, 9, 9], pbc=True)
PLAIN = {"outer_fs": 4.0, "inner_fs": 1.0, "hydrogen_mass": 4.0, "temperature_K": 300.0}
PLAIN |= {"friction_per_ps": 1.0, "steps": 20, "stride": 1, "seed": 7}


def written(folder: Path, *replace, atoms=WATER, teacher="so3lr", **choices) -> Path:
    text = input_xml(
        RunSettings(teacher=teacher, student="student:water", **PLAIN | choices), folder
    )
    for old, new in replace:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "input.xml").write_text(text)
    atoms.write(folder / "start.extxyz")
    return folder / "input.xml"


def changed(**changes) -> Atoms:
    atoms = WATER.copy()
    for key, value in changes.items():
        if key == "held":
            atoms.set_constraint(FixAtoms(value))
        elif key == "charge":
            atoms.info["charge"] = value
        else:
            setattr(atoms, key, value)
    return atoms


CPU = "device: cpu }"
ALONE = (CPU, "device: cpu, periodic: no }")
MOTION = "<motion mode='dynamics'>"


@pytest.mark.parametrize(
    ("atoms", "replace", "message"),
    [
        (changed(pbc=False), [], r"is isolated .* 'teacher', 'student' .* write `periodic: no`"),
        (WATER, [ALONE], r"is periodic, .* an isolated system: write `periodic: yes`"),
        (WATER, [("water, " + CPU, "water, " + ALONE[1])], r"for some of them only"),
        (changed(pbc=False), [ALONE, ("pbc='False'", "pbc='True'")], "torn apart"),
        (WATER, [(CPU, "device: cpu, periodic: maybe }")], r"periodic: 'maybe': write yes or no"),
        (changed(charge=-1), [], r"charge of -1 e, .*'so3lr' .* `model: so3lr\?charge=-1`"),
        (
            changed(charge=-1),
            [("so3lr,", "so3lr?charge=1,")],
            r"charge of -1 e, .* is for \+1 e",
        ),
        (
            changed(held=[0, 2]),
            [],
            r"holds the atoms \[0, 2\] .* lets them go: write <fixatoms> \[0, 2\] </fixatoms>",
        ),
        (changed(held=[0]), [(MOTION, MOTION + "<fixatoms> [ 1 ] </fixatoms>")], r"fixes \[1\]"),
        (
            changed(held=[0]),
            [(MOTION, MOTION + "<fixatoms_dof> [ 0, 1 ] </fixatoms_dof>")],
            "lets them go",
        ),
        (WATER, [("name='student'", "name='i-pi'")], "is not i-pi"),
        (WATER, [("name='student'", "name='teacher'")], "2 <ffsocket>.* the name 'teacher'"),
        (WATER, [("<total_steps> 20", "<total_steps> 1e5")], "a whole number, without exponent"),
    ],
)
def test_what_the_start_says_and_the_input_does_not_is_refused(tmp_path, atoms, replace, message):
    with pytest.raises(UserError, match=message):
        read_input(written(tmp_path, *replace, atoms=atoms))


@pytest.mark.parametrize(
    ("atoms", "replace"),
    [
        (changed(pbc=False), [ALONE]),
        (WATER, [(CPU, "device: cpu, periodic: yes }")]),
        (changed(charge=-1), [("so3lr,", "so3lr?charge=-1,")]),
        (WATER, [("so3lr,", "so3lr?charge=-1,")]),
        (changed(held=[0, 1]), [(MOTION, MOTION + "<fixatoms> [1, 0] </fixatoms>")]),
        (changed(held=[1]), [(MOTION, MOTION + "<fixatoms_dof> [3,4,5] </fixatoms_dof>")]),
    ],
)
def test_what_both_say_is_read(tmp_path, atoms, replace):
    run = read_input(written(tmp_path, *replace, atoms=atoms))
    assert [driver.periodic for driver in run.drivers] == 2 * [bool(atoms.pbc.all())]
    assert all("periodic" not in driver.options for driver in run.drivers)


def test_what_a_committee_is_made_of_belongs_to_the_systems_that_use_it(tmp_path):
    file = written(tmp_path, atoms=changed(pbc=False))
    text = file.read_text()
    block = re.search(r"<ffsocket name='teacher'.*?</ffsocket>", text, re.S).group()
    member = block.replace("name='teacher'", "name='one'")
    text = text.replace(block, f"<ffcommittee name='teacher'> {member} </ffcommittee>")
    file.write_text(text.replace("water, " + CPU, "water, " + ALONE[1]))
    with pytest.raises(UserError, match="of one, student say `periodic: no` for some"):
        read_input(file)
    file.write_text(text.replace(*ALONE))
    run = read_input(file)
    assert (run.teacher, run.student) == ("teacher", "student")


def test_systems_have_pairs_of_their_own_and_levels_of_their_own(tmp_path):
    file = written(tmp_path, exchange_K=(310.0,))
    text = file.read_text()
    sockets = re.findall(r"<ffsocket.*?</ffsocket>", text, re.S)
    second = "".join(
        block.replace("'teacher'", "'slow'")
        .replace("'student'", "'fast'")
        .replace("<address> ", "<address> second-")
        for block in sockets
    )
    head, tail = text.split("prefix='replica1'")
    tail = tail.replace("'teacher'", "'slow'").replace("'student'", "'fast'")
    three = tail.replace("[ 1, 4 ]", "[ 1, 2, 2 ]").replace("[ 1, 0 ]", "[ 1, 0, 0 ]")
    three = three.replace("[ -1, 1 ]", "[ -1, 0, 1 ]")
    for end in (tail, three):
        file.write_text(f"{head}prefix='replica1'{end}".replace("<system", second + "<system", 1))
        if end is three:  # of which the second model must be between them
            assert read_input(file).students == ("student",)
            continue
        run = read_input(file)
        assert run.teachers == ("teacher", "slow") and run.students == ("student", "fast")
        assert run.teacher is None and run.student is None
    file.write_text(file.read_text().replace("[ 1, 4 ]", "[ 1, 2, 2 ]"))
    with pytest.raises(UserError, match=r"<nmts> \[1, 2, 2\] has 3 level\(s\)"):
        read_input(file)


def test_templates_are_filled_in(tmp_path):
    file = written(tmp_path)
    system = re.search(r"<system>.*</system>", file.read_text(), re.S).group()
    for name in ("b.extxyz", "c.extxyz"):
        WATER.write(tmp_path / name)
    template = (
        f"<system_template><labels> [ FILE ] </labels>"
        f"<instance> [ b.extxyz ] </instance><instance> [ c.extxyz ] </instance>"
        f"<template> {system.replace('start.extxyz', 'FILE')} </template></system_template>"
    )
    text = file.read_text().replace(system, template)
    file.write_text(text)
    assert read_input(file).teachers == ("teacher",)
    file.write_text(text.replace("c.extxyz", "d.extxyz"))
    with pytest.raises(UserError, match=r"the start 'd.extxyz' .* does not exist"):
        read_input(file)


@pytest.mark.parametrize(
    ("label", "element"),
    [("O", "O"), ("D", "H"), ("T", "H"), ("H2", "H"), ("C13", "C"), ("Cl37", "Cl"), ("X", None)],
)
def test_labels_of_ipi_name_elements(label, element):
    assert element_of(label) == element


def test_a_label_of_ones_own_names_none():
    assert element_of("Ow") is None and element_of("") is None and element_of("L") is None
