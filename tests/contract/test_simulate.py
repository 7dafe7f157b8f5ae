"""Trajectories in this process: those of `mts run`, restarts to the last bit, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength
from ase.io import read
from running import STUDENT, TEACHER, make_run, mts, toy_water
from toy_calculators import NoForces, ToyWater

from integrators.state import Evaluation
from mts_driver import simulate
from mts_driver.errors import UserError
from mts_driver.simulation.simulate.trajectory_file import TrajectoryFile
from mts_driver.structures.files import read_structure

ROOT = Path(__file__).parents[2]
WATER64 = ROOT / "inputs/water64/start.extxyz"
OPTIONS = {"outer_fs": 4.0, "seed": 7, "progress": False, "stride": 2}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)


def toy(**options):
    """Simulate the toy with calculator objects, 20 outer steps."""
    models = {"teacher": ToyWater(), "student": ToyWater(scale=1.02)}
    return simulate(
        options.pop("atoms", toy_water()), **{**models, "steps": 20} | OPTIONS | options
    )


def same(a, b):
    """Require two results to be alike to the last bit, but for the clock."""
    for x, y in (
        *((a.properties[k], b.properties[k]) for k in a.properties),
        (a.atoms.positions, b.atoms.positions),
        (a.atoms.get_momenta(), b.atoms.get_momenta()),
    ):
        np.testing.assert_array_equal(x, y)
    assert a.temperatures_K == b.temperatures_K
    assert replace(a.holes, frames=()) == replace(b.holes, frames=())
    assert len(a.holes.frames) == len(b.holes.frames)


HELD = {"constrain_hydrogens": True, "bond_lengths_A": {"O-H": 0.97}}
ALIKE = {
    "friction of hydrogens": ({"hydrogen_friction_per_ps": 5.0},) * 2,
    "coloured noise": ({"high_pass": True}, {"thermostat": "high-pass"}),
    "stronger coloured noise": (
        {"high_pass": True, "high_friction_per_ps": 200.0},
        {"thermostat": "high-pass", "high_friction_per_ps": 200.0},
    ),
    "held bonds": ({"constrained": True}, HELD),
    "both": ({"constrained": True, "high_pass": True}, HELD | {"thermostat": "high-pass"}),
    "a solute": ({"symbols": "SH2" + 7 * "OH2"}, {}),
}
GROUPS = ["all", "H", "heavy"]


@pytest.mark.parametrize("case", ALIKE)
def test_the_trajectory_is_that_of_mts_run_with_the_same_seed(tmp_path, case):
    """Velocities, noise, friction of hydrogens, clip and temperatures: all are i-PI's."""
    choices, options = ALIKE[case]
    file = make_run(tmp_path / "run", mode="zmq", device_steps=3, **choices)
    assert mts("run", file, "--baseline-steps", 0).returncode == 0
    summary = json.loads((file.parent / "summary.json").read_text())
    theirs = read(file.parent / "simulation.pos_0.xyz", index=":")
    ours = simulate(
        file.parent / "start.extxyz",
        teacher=TEACHER,
        student=STUDENT,
        steps=20,
        trajectory=tmp_path / "ours.extxyz",
        **options,
        **OPTIONS | {"stride": 1},
    )
    frames = read(tmp_path / "ours.extxyz", index=":")
    assert len(theirs) == len(frames) == 21
    # i-PI moves a start onto held bonds with its first step
    for a, b in list(zip(theirs, frames, strict=True))[1 if "constrained" in choices else 0 :]:
        np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=1e-5)  # i-PI's digits
    assert ours.temperatures_K == pytest.approx(summary["temperatures_K"], rel=1e-5)
    of_solute = ["solute H", "solute heavy"] if case == "a solute" else []
    assert list(ours.temperatures_K) == GROUPS + of_solute
    for name in ("clip_events", "max_force_difference_eV_A"):
        assert getattr(ours.holes, name) == pytest.approx(summary[name], rel=1e-5)
    assert ours.holes.steps == summary["holes"]


class Killed(BaseException):
    """Ends a run as a signal would: nothing catches it."""


class Mortal(ToyWater):
    """Dies after so many calls."""

    lives = 10**9

    def calculate(self, *arguments, **options):
        if self.calls >= self.lives:
            raise Killed
        super().calculate(*arguments, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"thermostat": "high-pass"},
        HELD,
        HELD | {"rigid_water": True},
        HELD | {"thermostat": "high-pass"},
    ],
)
def test_noise_and_held_bonds_go_on_from_a_checkpoint(tmp_path, options):
    if "rigid_water" in options:  # at averages, which a checkpoint keeps
        options = {"rigid_water": True}
    whole, file = toy(**options), {"checkpoint": tmp_path / "c.safetensors"}
    toy(steps=9, **file, **options)
    same(toy(**file, **options), whole)
    if options != {"thermostat": "high-pass"}:
        bonds = whole.atoms.get_distances(0, [1, 2], mic=True)
        assert abs(bonds[0] - bonds[1]) < 1e-9
        with pytest.raises(UserError, match="is of a simulation with"):
            toy(**file)


@pytest.mark.parametrize("lives", [2, 9, 17, 20])
def test_a_killed_simulation_goes_on_as_if_nothing_had_been(tmp_path, lives):
    whole = toy(teacher=Mortal(), trajectory=tmp_path / "whole.extxyz")
    mortal = Mortal()
    mortal.lives = lives
    files = {"trajectory": tmp_path / "t.extxyz", "checkpoint": tmp_path / "c.safetensors"}
    files["checkpoint_stride"] = 4
    with pytest.raises(Killed):
        toy(teacher=mortal, **files)
    with open(files["trajectory"], "a") as stream:
        stream.write("24\nhalf a frame")
    found = toy(teacher=Mortal(), **files)
    same(found, whole)
    assert files["trajectory"].read_bytes() == (tmp_path / "whole.extxyz").read_bytes()
    assert [f.info["step"] for f in read(files["trajectory"], ":")] == list(range(0, 21, 2))
    # a simulation that has ended is known, and can be made longer
    again = toy(teacher=Mortal(), **files)
    same(again, found)
    assert again.timings == found.timings
    same(toy(teacher=Mortal(), steps=26, **files), toy(teacher=Mortal(), steps=26))


def test_a_continued_simulation_of_the_real_student_keeps_every_bit(tmp_path):
    """Neighbour lists start anew, where sums of single precision could take another order."""
    molecules = read(WATER64)[:24]
    molecules.set_array("masses", None)
    molecules.pbc, molecules.cell = False, None
    options = {"teacher": "student:general", "outer_fs": 2.0, "seed": 3, "progress": False}
    whole = simulate(molecules, steps=40, **options)
    file = tmp_path / "c.safetensors"
    simulate(molecules, steps=25, checkpoint=file, **options)
    same(simulate(molecules, steps=40, checkpoint=file, **options), whole)


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ({"outer_fs": 2.0}, "outer_fs=4.0, not 2.0"),
        ({"temperature_K": 310.0}, "temperature_K=300.0, not 310.0"),
        ({"seed": 8}, "seed=7, not 8"),
        ({"student": None}, "inner_fs=1.0, not 4.0"),
        ({"atoms": toy_water(1)}, "atoms="),
        ({"trajectory": "another.extxyz"}, "trajectory=None, not 'another.extxyz'"),
        ({"student": ToyWater(scale=1.1)}, "student is not that of the checkpoint"),
        ({"steps": 3}, "steps=3, but checkpoint"),
    ],
)
def test_a_checkpoint_of_another_simulation_is_refused(tmp_path, monkeypatch, choice, named):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "c.safetensors"
    toy(steps=4, checkpoint=file)
    before = file.read_bytes()
    with pytest.raises(UserError, match=named):
        toy(checkpoint=file, **{"steps": 8} | choice)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    file = tmp_path / "c.safetensors"
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match="not one of a simulation"):
        toy(checkpoint=file)
    assert file.read_bytes() == b"something else"


def test_a_trajectory_of_another_simulation_is_kept(tmp_path):
    toy(steps=2, trajectory=tmp_path / "t.extxyz")
    first = (tmp_path / "t.extxyz").read_bytes()
    toy(steps=4, trajectory=tmp_path / "t.extxyz")
    assert (tmp_path / "#t.extxyz#0#").read_bytes() == first


def test_a_trajectory_that_another_process_writes_is_left_alone(tmp_path):
    files = {"trajectory": tmp_path / "t.extxyz", "checkpoint": tmp_path / "c.safetensors"}
    toy(steps=5, **files)
    before = files["trajectory"].read_bytes()
    with (
        TrajectoryFile(files["trajectory"], continue_at=len(before)),
        pytest.raises(UserError, match="by another process"),
    ):
        toy(steps=9, **files)
    assert files["trajectory"].read_bytes() == before
    toy(steps=9, **files)
    assert files["trajectory"].read_bytes().startswith(before)


def test_a_trajectory_that_is_shorter_than_its_checkpoint_is_refused(tmp_path):
    files = {"trajectory": tmp_path / "t.extxyz", "checkpoint": tmp_path / "c.safetensors"}
    toy(steps=4, **files)
    files["trajectory"].write_text("")
    with pytest.raises(UserError, match="0 bytes, but its checkpoint"):
        toy(steps=8, **files)


def test_constant_energy_goes_on_from_its_own_last_frame(tmp_path):
    """Positions, velocities and masses of a result are those that the next one starts with."""
    file = tmp_path / "t.extxyz"
    start = toy(steps=1).atoms
    whole = toy(atoms=start, friction_per_ps=0.0, steps=20)
    half = toy(atoms=start, friction_per_ps=0.0, steps=10, trajectory=file)
    for go_on, digits in ((half.atoms, 1e-9), (file, 1e-5)):  # the file has eight digits
        rest = toy(atoms=go_on, friction_per_ps=0.0, steps=10)
        np.testing.assert_allclose(rest.atoms.positions, whole.atoms.positions, atol=digits)
        np.testing.assert_allclose(rest.atoms.get_momenta(), whole.atoms.get_momenta(), atol=digits)
    energy = whole.properties["conserved_energy_eV"]
    assert np.ptp(energy) < 0.02 * whole.properties["kinetic_energy_eV"].mean()
    assert np.ptp(whole.properties["kinetic_energy_eV"]) > 20 * np.ptp(energy)
    assert whole.temperature_errors_K["all"] is not None


def test_frames_have_velocities_forces_masses_and_charge(tmp_path):
    ion = toy_water(1)
    ion.pbc, ion.cell, ion.info["charge"] = False, None, -1
    asked = []

    class Charged(ToyWater):
        def calculate(self, atoms=None, *arguments):
            asked.append(atoms.info["charge"])
            super().calculate(atoms, *arguments)

    toy(atoms=ion, teacher=Charged(), steps=4, trajectory=tmp_path / "t.extxyz")
    assert set(asked) == {-1}
    frame = read(tmp_path / "t.extxyz")
    assert frame.info["charge"] == -1 and frame.info["time_ps"] == 0.016
    np.testing.assert_allclose(frame.get_masses(), [18.015 - 8 + 0.001 * 0, 4, 4], atol=0.01)
    frame_forces = frame.get_forces()
    np.testing.assert_allclose(frame_forces, forces_of(frame, ToyWater()), atol=1e-6)
    kept = read_structure(tmp_path / "t.extxyz", keep_velocities=True)
    # with its own masses every atom has the kinetic energy that it had with heavy hydrogens
    roots = [np.sqrt(one.get_masses())[:, None] for one in (kept, frame)]
    of_kept, of_frame = kept.get_velocities() * roots[0], frame.get_velocities() * roots[1]
    np.testing.assert_allclose(of_kept, of_frame, rtol=1e-6)
    assert kept.get_masses()[1] == pytest.approx(1.008)
    with pytest.raises(UserError, match="charge"):
        toy(atoms=ion, teacher=TEACHER)


def forces_of(atoms, calculator):
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    copy.calc = calculator
    return copy.get_forces()


def test_held_atoms_stay_and_the_others_move():
    atoms = toy_water()
    atoms.set_constraint(FixAtoms([0, 4, 5]))
    found = toy(atoms=atoms)
    moved = np.abs(found.atoms.positions - atoms.positions).max(axis=1)
    assert (moved[[0, 4, 5]] == 0).all() and (np.delete(moved, [0, 4, 5]) > 0).all()
    assert (found.atoms.get_momenta()[[0, 4, 5]] == 0).all()
    assert found.atoms.constraints[0].index.tolist() == [0, 4, 5]
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(UserError, match="FixBondLength"):
        toy(atoms=atoms)


def test_argon_of_a_potential_and_a_calculator_keeps_its_temperature():
    """Two Lennard-Jones fluids that differ, with everything that a model may be."""
    rng = np.random.default_rng(2)
    grid = np.array(list(np.ndindex(3, 3, 3))) * 3.8
    atoms = Atoms("Ar27", grid + rng.normal(scale=0.05, size=(27, 3)), cell=[11.4] * 3, pbc=True)
    options = {"epsilon": 0.0103, "rc": 5.0}

    class Fluid:
        def __init__(self):
            self.calculator = LennardJones(sigma=3.4, **options)

        def __call__(self, positions, cell):
            now = Atoms("Ar27", positions.numpy(), cell=cell.numpy(), pbc=True)
            now.calc = self.calculator
            energy, forces = now.get_potential_energy(), now.get_forces()
            return Evaluation(torch.tensor(energy), torch.tensor(forces), torch.zeros(3, 3))

    found = simulate(
        atoms,
        teacher=Fluid(),
        student=LennardJones(sigma=3.38, **options),
        steps=150,
        outer_fs=12.0,
        inner_fs=6.0,
        temperature_K=90.0,
        friction_per_ps=20.0,
        hydrogen_mass_Da=0.0,
        progress=False,
    )
    assert found.temperatures_K.keys() == {"all", "heavy"}
    error = found.temperature_errors_K["all"]
    assert 0.5 < error < 4.0
    assert abs(found.temperatures_K["all"] - 90.0) < 4 * error
    assert found.timings.teacher_calls == 150 and found.timings.student_calls == 300


def test_a_student_that_is_wrong_shows():
    found = toy(student=ToyWater(scale=4.0), steps=6, outer_fs=1.0)
    assert found.holes.steps > 0 and found.holes.clip_events > 0
    assert found.holes.max_force_difference_eV_A > 6.5046
    frame = found.holes.frames[0]
    np.testing.assert_allclose(
        frame.get_array("teacher_forces"), forces_of(frame, ToyWater()), atol=1e-9
    )


def test_single_steps_need_no_student():
    found = toy(student=None, outer_fs=1.0)
    assert found.timings.student_calls == 0 and found.timings.teacher_calls == 20
    assert found.holes.max_force_difference_eV_A == 0
    assert toy(student="none", outer_fs=1.0).temperatures_K == found.temperatures_K


def test_a_trajectory_that_blows_up_ends_in_a_sentence(tmp_path):
    file = tmp_path / "t.extxyz"
    with pytest.raises(UserError, match="outer_fs"):
        toy(teacher=ToyWater(scale=-40.0), outer_fs=40.0, inner_fs=10.0, trajectory=file)
    assert read(file, ":")
    with pytest.raises(UserError, match="the teacher returned forces that are not finite"):
        toy(teacher=ToyWater(nan_after=3))


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ({"outer_fs": -1.0}, "outer_fs=-1:"),
        ({"outer_fs": 4.5}, "outer_fs=4.5 is no multiple of inner_fs=1"),
        ({"inner_fs": float("nan")}, "inner_fs=nan"),
        ({"temperature_K": 0.0}, "temperature_K=0.0"),
        ({"friction_per_ps": -1.0}, "friction_per_ps=-1.0"),
        ({"hydrogen_mass_Da": 12.0}, "hydrogen_mass_Da"),
        ({"thermostat": "low-pass"}, "thermostat='low-pass'"),
        ({"thermostat": "high-pass", "friction_per_ps": 0.0}, "constant energy"),
        ({"bond_lengths_A": {"O-H": 1.0}}, "without constrain_hydrogens"),
        ({"constrain_hydrogens": True, "bond_lengths_A": {"S-H": 1.0}}, "names 'S-H'"),
        ({"rigid_water": True, "hydrogen_friction_per_ps": 9.0}, "must have one friction"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"stride": 0}, "stride=0"),
        ({"seed": -1}, "seed=-1"),
        ({"teacher": "so4lr"}, "so4lr"),
        ({"teacher": ToyWater}, "teacher="),
        ({"teacher": NoForces()}, "gives no forces"),
        ({"student": "nowhere.safetensors"}, "student='nowhere.safetensors'"),
        ({"student": 3}, "student=3"),
        ({"trajectory": "/nowhere/t.extxyz"}, "trajectory='/nowhere"),
        ({"checkpoint": "/nowhere/c"}, "checkpoint='/nowhere"),
        ({"dtype": "float16", "student": "water"}, "dtype='float16'"),
        ({"atoms": Atoms()}, "atoms is empty"),
        ({"atoms": 3}, "atoms is int"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_parameter(choice, named):
    with pytest.raises(UserError) as refused:
        toy(**choice)
    assert named in str(refused.value) and "--" not in str(refused.value)


def test_the_ten_lines(tmp_path, monkeypatch, capsys):
    """As a newcomer types them, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    script = (ROOT / "inputs/python/water.py").read_text()
    script = script.replace("steps=200", "steps=10").replace('"inputs/', f'"{ROOT}/inputs/')
    scope = {}
    exec(compile(script, "water.py", "exec"), scope)
    run = scope["run"]
    assert str(run.ns_per_day)[:4] in capsys.readouterr().out
    assert run.holes.steps == 0 and run.holes.max_force_difference_eV_A < 1.0
    for name, kelvin in run.temperatures_K.items():
        assert abs(kelvin - 300) < 3 * run.temperature_errors_K[name]
    assert len(read("water.extxyz", ":")) == 3
    assert run.timings.teacher_calls == 10 and run.timings.student_calls == 60
