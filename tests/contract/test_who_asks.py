"""A driver evaluates the atoms that it is asked about, or the run or the driver refuses."""

import json
import os
import re
import subprocess

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.io import read
from ipi.engine.simulation import Simulation
from ipi_input import simulation_xml
from running import (
    MTS,
    assert_nothing_is_left,
    environment,
    make_run,
    mts,
    toy_water,
)

from mts_driver.cli.serve import _load
from mts_driver.drivers.counters import Stats
from mts_driver.errors import UserError
from mts_driver.runs.atoms_of_run import check_systems, structure_for
from mts_driver.runs.launcher import Launcher, load
from mts_driver.structures.files import read_structure, write_start
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.units import BOHR_A, HARTREE_EV

LJ = "ase:ase.calculators.lj:LennardJones?sigma=3.4&epsilon=0.0104&rc=8.0"
SOFT = "ase:toy_calculators:ToyWater?scale=0.0"


def columns(folder, replica):
    """Step, potential energy and temperature of a replica."""
    return np.loadtxt(folder / f"replica{replica}_simulation.out")[:, [0, 3, 5]]


def with_a_second_pair(input_xml, start, *, periodic="yes"):
    """Give the second system a start and drivers of its own."""
    text = input_xml.read_text()
    text = re.sub(r"\s*<!-- files follow.*?</smotion>", "", text, flags=re.S)
    blocks = "\n".join(re.findall(r"<ffsocket.*?</ffsocket>", text, re.S))
    head, tail = text.split("<system prefix='replica1'>")

    def renamed(part):
        return part.replace("'teacher'", "'slow'").replace("'student'", "'fast'")

    second = renamed(blocks).replace("<address> ", "<address> second-")
    second = second.replace("device: cpu", f"device: cpu, periodic: {periodic}")
    tail = renamed(tail).replace("start.extxyz", start)
    head = head.replace("<system prefix", second + "<system prefix", 1)
    input_xml.write_text(f"{head}<system prefix='replica1'>{tail}")


def test_two_systems_of_two_orders_are_refused_or_have_drivers_of_their_own(tmp_path, cases):
    """The case two_systems_two_orders: -983 eV and 33,500 K where both should have one energy."""
    input_xml = make_run(
        *(tmp_path / "two",),
        **{"teacher": "student:water", "student": None, "outer_fs": 1.0, "steps": 2},
        **{"hydrogen_mass": 0.0, "exchange_K": (310.0,)},
    )
    for name, start in (("a", "start.extxyz"), ("b", "start_b.extxyz")):
        atoms = read_structure(cases / "two_systems_two_orders" / f"{name}.extxyz")
        write_start(input_xml.parent / start, atoms, atoms.get_masses())
    text = input_xml.read_text()
    at = text.rfind("start.extxyz")
    input_xml.write_text(text[:at] + "start_b.extxyz" + text[at + len("start.extxyz") :])
    with pytest.raises(UserError) as error:
        Launcher(load(input_xml)).execute()
    assert str(error.value).startswith("systems 1 and 2 of the input share the force field 'teach")
    assert "atom 0 is O in the first and H in the second" in str(error.value)
    assert not list(input_xml.parent.glob("*simulation*"))
    input_xml.write_text(text)
    with_a_second_pair(input_xml, "start_b.extxyz")
    done = mts("run", input_xml, "--baseline-steps", 0, "--quiet")
    assert done.returncode == 0, done.stderr
    first, second = (columns(input_xml.parent, k)[0, 1] for k in (0, 1))
    assert first == pytest.approx(second, abs=1e-4)
    atoms = read(input_xml.parent / "start.extxyz")
    student = evaluator("student:water", input_xml.parent / "start.extxyz")
    energy = student(atoms.positions[None] / BOHR_A, atoms.cell.array[None] / BOHR_A)[0][0]
    assert first == pytest.approx(energy * HARTREE_EV, abs=1e-3)


def test_two_pairs_of_different_systems_run_side_by_side_and_restart(tmp_path):
    """Eight molecules in a box, and one that is isolated; a student with holes in both."""
    clip = "<force_clip units='ev/ang'>"
    low = f"<hole_threshold units='ev/ang'> 0.01 </hole_threshold>\n        {clip}"
    input_xml = make_run(
        *(tmp_path / "run",),
        **{"student": SOFT, "steps": 4, "exchange_K": (310.0,), "replace": [(clip, low)]},
    )
    one = toy_water(1)
    one.pbc = False
    one.center(vacuum=10.0)
    write_start(input_xml.parent / "one.extxyz", one, repartitioned_masses(one, 4.0))
    with_a_second_pair(input_xml, "one.extxyz", periodic="no")
    done = mts("run", input_xml, "--baseline-steps", 2)
    assert done.returncode == 0, done.stderr
    assert_nothing_is_left(input_xml)
    summary = json.loads((input_xml.parent / "summary.json").read_text())
    assert summary["completed"] and summary["systems"] == 2 and summary["natoms"] is None
    assert summary["teacher_calls"] == 2 * 5 and summary["student_calls"] == 2 * (4 * 4 + 1)
    assert "2 systems" in summary["speedup_vs_single_step_reason"]
    assert abs(summary["conserved_drift_meV_atom_ps"]) < np.inf
    frames = read(input_xml.parent / "holes.extxyz", ":")
    sizes = {frame.info["system"]: (len(frame), bool(frame.pbc.any())) for frame in frames}
    assert summary["hole_threshold_eV_A"] == pytest.approx(0.01)
    assert sizes == {0: (24, True), 1: (3, False)}
    assert {frame.info["teacher"] for frame in frames} == {"ase:toy_calculators:ToyWater"}
    assert "a report is of one" in done.stderr
    again = mts("run", input_xml, "--restart", "--steps", 6, "--baseline-steps", 0)
    assert again.returncode == 0, again.stderr
    for replica in (0, 1):
        assert columns(input_xml.parent, replica)[:, 0].tolist() == list(range(7))
    frames = read(input_xml.parent / "holes.extxyz", ":")
    assert max(frame.info["step"] for frame in frames) == 6
    assert {bool(f.pbc.any()) for f in frames if f.info["system"] == 1} == {False}


def loaded(folder, monkeypatch, **options) -> Simulation:
    monkeypatch.chdir(folder)
    from integrators.ipi.plugin import register

    register()
    return Simulation.load_from_xml(simulation_xml(folder, **options))


XYZ = """3
# CELL(abcABC): 20 20 20 90 90 90 positions{angstrom} cell{angstrom}
O 0.0 0.0 0.0
D 0.96 0.0 0.0
H2 -0.24 0.93 0.0
"""


def test_isotopes_are_atoms_of_their_element_for_a_driver(tmp_path, monkeypatch):
    atoms = structure_for(loaded(tmp_path, monkeypatch, xyz=XYZ), "teacher", periodic=True)
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    assert atoms.positions[1] == pytest.approx([0.96, 0, 0])
    assert atoms.pbc.all() and atoms.cell.lengths() == pytest.approx([20, 20, 20])
    assert not structure_for(
        loaded(tmp_path, monkeypatch, xyz=XYZ), "teacher", periodic=False
    ).pbc.any()


def test_what_no_driver_can_be_built_for_is_refused_by_name(tmp_path, monkeypatch):
    simulation = loaded(tmp_path, monkeypatch, xyz=XYZ)
    check_systems(simulation)
    system = simulation.syslist[0]
    system.beads.names[2] = "X"
    with pytest.raises(UserError, match="atom 2 has the label 'X', which is no element"):
        structure_for(simulation, "teacher", periodic=True)
    system.beads.names[2] = "H"
    system.beads.q[0, 3:6] = system.beads.q[0, 0:3]
    with pytest.raises(UserError, match="atoms 0 and 1 are 0 Å apart"):
        structure_for(simulation, "teacher", periodic=True)
    system.beads.m[1] = -1
    with pytest.raises(UserError, match=r"atom 1 \(D\) has no mass"):
        check_systems(simulation)
    system.beads.m[1] = 1
    system.cell.h[2, 2] *= -1
    with pytest.raises(UserError, match=r"its cell is left-handed .* exchange two of its vectors"):
        check_systems(simulation)


def argon() -> Atoms:
    return Atoms("Ar4", [[0, 0, 0], [3.7, 0, 0], [0, 3.8, 0], [0, 0, 3.9]])


@pytest.mark.parametrize("kind", ["isolated", "boxed", "periodic"])
def test_ase_asks_about_isolated_and_periodic_atoms(tmp_path, kind):
    """As ASE's own client, the driver follows the pbc of its structure, not the server's cell."""
    from ase.calculators.socketio import SocketIOCalculator

    atoms = argon()
    if kind != "isolated":
        atoms.center(vacuum=1.0)  # images would be near
        atoms.pbc = kind == "periodic"
    atoms.write(tmp_path / "start.extxyz")
    name = f"mts-test-{kind}-{os.getpid()}"
    driver = subprocess.Popen(
        [MTS, "serve", LJ, "--structure", "start.extxyz", "--address", name, "--quiet"],
        cwd=tmp_path,
        text=True,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    reference = atoms.copy()
    reference.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0)
    with SocketIOCalculator(unixsocket=name, timeout=180) as calculator:
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(reference.get_potential_energy())
        np.testing.assert_allclose(atoms.get_forces(), reference.get_forces(), atol=1e-7)
        if kind == "periodic":
            np.testing.assert_allclose(atoms.get_stress(), reference.get_stress(), atol=1e-7)
    _, messages = driver.communicate(timeout=180)
    assert driver.returncode == 0 and messages == "", messages


def evaluator(spec, structure):
    how = {"device": "cpu", "dtype": "float32", "virial": False}
    return _load(spec, structure, **how, stats=Stats(spec))


def test_an_isolated_molecule_served(cases):
    """The case isolated_molecule_served: -1488.17240 eV, and -1488.18297 among its images."""
    pytest.importorskip("so3krates_torch")
    structure = cases / "isolated_molecule_served" / "eth.extxyz"
    atoms = read(structure)
    assert atoms.cell.rank == 3 and not atoms.pbc.any()
    served = evaluator("so3lr", structure)
    energies, _, virials = served(atoms.positions[None] / BOHR_A, atoms.cell.array[None] / BOHR_A)
    assert energies[0] * HARTREE_EV == pytest.approx(-1488.17240, abs=5e-5)
    assert not virials.any()


def test_an_isolated_molecule_over_zmq(tmp_path):
    from mts_driver.drivers.zmq.messages import Message
    from mts_driver.drivers.zmq.requests import Answers, Model, Request

    atoms = toy_water(1)
    atoms.pbc = False
    atoms.center(vacuum=0.7)  # images would overlap
    atoms.write(tmp_path / "start.extxyz")
    served = evaluator("student:water", tmp_path / "start.extxyz")
    alone = served(atoms.positions[None] / BOHR_A, np.zeros((1, 3, 3)))
    arrays = {"q": atoms.positions / BOHR_A, "cell": atoms.cell.array / BOHR_A}
    (answer,) = Answers(Model("water", served)).to([Request(b"a", Message("evaluate", {}, arrays))])
    assert float(answer.arrays["energy"]) == pytest.approx(alone[0][0], abs=1e-9)
    np.testing.assert_allclose(answer.arrays["forces"], alone[1][0], atol=1e-9)
    assert not answer.arrays["virial"].any()


def test_a_server_without_a_cell_for_periodic_atoms_and_one_with_another_order(tmp_path):
    atoms = toy_water(1)
    atoms.write(tmp_path / "start.extxyz")
    served = evaluator("student:water", tmp_path / "start.extxyz")
    cell = atoms.cell.array[None] / BOHR_A
    with pytest.raises(UserError, match="a cell without volume, but --structure is periodic"):
        served(atoms.positions[None] / BOHR_A, 0 * cell)
    other = atoms.positions[[1, 0, 2]]
    with pytest.raises(UserError, match=r"atom 0 is where --structure has its atom 1, H, but"):
        served(other[None] / BOHR_A, cell)
    # the same order of elements is the same order
    served = evaluator("student:water", tmp_path / "start.extxyz")
    served(atoms.positions[None, [0, 2, 1]] / BOHR_A, cell)


def test_atoms_that_look_mixed_up_are_said_once(tmp_path, capsys):
    atoms = toy_water()
    atoms.write(tmp_path / "start.extxyz")
    cell = atoms.cell.array[None] / BOHR_A
    warm = atoms.positions + np.random.default_rng(1).normal(scale=0.04, size=(24, 3))
    # where nothing can be told from places
    mixed = warm[np.arange(24).reshape(-1, 3)[:, [1, 0, 2]].ravel()]
    torn = warm.copy()
    torn[1] = torn[0] + [0.0, 0.0, 0.35]
    said = []
    for first in (warm, mixed, torn):
        served = evaluator("student:water", tmp_path / "start.extxyz")
        capsys.readouterr()
        for positions in (first, first):
            served(positions[None] / BOHR_A, cell)
        said.append(capsys.readouterr().err)
    order = "the order of atoms in --structure may not be the server's"
    assert [text.count(order) for text in said] == [0, 1, 1], said
    assert "where --structure has 16 H-O" in said[1]
    assert "has a force of" in said[2] and "bonds" not in said[2]
