"""mts check: what is measured, what is found, and a check that is continued after a kill."""

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from typer.testing import CliRunner

from integrators.splitting import OU
from integrators.state import Evaluation, initial_state
from mts_driver.cli.check import check as command
from mts_driver.cli.command import Command
from mts_driver.errors import UserError
from mts_driver.structures.files import read_structure
from mts_driver.structures.solutes import force_groups, solute_weights
from mts_driver.units import BOLTZMANN_EV_K
from mts_driver.validation.averages import Tally
from mts_driver.validation.check import STATE_FILE, CheckSettings, check, finish
from mts_driver.validation.criteria import problems

WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"


class Springs:
    """A water molecule of springs; remembers what it was asked about last.

    ``push`` makes O-H bonds repel beyond 0.98 Å; ``wind`` is a constant force on the oxygen, eV/Å.
    """

    def __init__(self, *, push=0.0, wind=0.0):
        self.push, self.wind, self.last, self.calls = push, wind, None, 0

    def __call__(self, positions, cell):
        self.last, self.calls = positions.clone(), self.calls + 1
        x = positions.detach().requires_grad_()
        bonds = (x[1:] - x[0]).norm(dim=-1)
        energy = 25 * (bonds - 0.96).square().sum() + 2.5 * ((x[1] - x[2]).norm() - 1.5).square()
        energy = energy - self.push * (bonds - 0.98).clamp_min(0).square().sum()
        energy = energy - self.wind * x[0, 0]
        (slope,) = torch.autograd.grad(energy, x)
        return Evaluation(energy.detach(), -slope, positions.new_zeros(3, 3))


def settings(**choices):
    values = {"student": "s", "student_sha256": "0", "teacher": "t", "picoseconds": 0.6}
    values |= {"outer_fs": 6.0, "inner_fs": 1.0, "hydrogen_mass_Da": 4.0, "temperature_K": 300.0}
    values |= {"friction_per_ps": 1.0, "hydrogen_friction_per_ps": 5.0}
    return CheckSettings(**values | {"equilibrate_ps": 0.1, "seed": 3} | choices)


def checked(work, teacher, student, *, report=lambda *_: None, force=False, every=0.0, **choices):
    return check(
        molecule("H2O"),
        teacher,
        student,
        settings(**choices),
        work=work,
        report=report,
        force=force,
        save_every_s=every,
    )


def test_a_perfect_student(tmp_path):
    reports, teacher = [], Springs()
    found = checked(
        tmp_path,
        teacher,
        Springs(),
        report=lambda *words: reports.append(words),
        picoseconds=3,
        friction_per_ps=20.0,
        hydrogen_friction_per_ps=20.0,
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    # 0.6 ps of settling, and the run
    assert found["steps"] == 500 and teacher.calls == 101 + 501
    assert found["simulated_ps"] == found["clean_ps"] == pytest.approx(3.0)
    assert found["force_rmse_eV_A"] == {"all": 0.0, "H": 0.0, "O": 0.0}
    assert (found["holes"], found["clip_events"], found["broken_bonds"]) == (0, 0, 0)
    assert not found["blown_up"] and problems(found) == []
    for measured in found["temperature_at_O_K"].values():
        assert abs(measured["mean"] - 300) < 60 and 5 < measured["stderr"] < 60
    assert 1.0 < found["longest_xh_bond_ratio"] < 1.3
    assert found["longest_heavy_bond_ratio"] is None
    # three springs with kT/2 each
    assert found["mean_potential_energy_eV"]["mean"] == pytest.approx(0.0388, rel=0.5)
    assert found["wall_s"] > 0 and found["s_per_ps"] == pytest.approx(found["wall_s"] / 3)
    assert {r[0].partition(",")[0] for r in reports} >= {
        "dynamics",
        "equilibration with the student",
        "settling beside the teacher",
    }
    assert reports[-1][1:] == (500, 500)
    finish(tmp_path)
    assert not tmp_path.exists()


def test_errors_of_forces_by_element(tmp_path):
    found = checked(tmp_path, Springs(), Springs(wind=0.3))
    rmse = found["force_rmse_eV_A"]
    assert rmse["O"] == pytest.approx(0.3 / np.sqrt(3)) and rmse["H"] == pytest.approx(0, abs=1e-6)
    assert rmse["all"] == pytest.approx(0.1)
    assert found["max_force_difference_eV_A"] == pytest.approx(0.3)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("student", "choices"),
    [
        (Springs(), {}),
        (Springs(push=20.0), {}),
        (Springs(), {"thermostat": "high-pass"}),
        (Springs(), {"thermostat": "high-pass", "rigid_water": True}),
    ],
    ids=["good", "with holes", "coloured noise", "rigid"],
)
def test_a_killed_check_is_the_uninterrupted_one(tmp_path, student, choices):
    how = {"picoseconds": 0.9, "equilibrate_ps": 0, **choices}

    def kill(stage, done, _):
        if stage.startswith("dynamics") and done == 55:
            raise Killed

    whole, teacher = Springs(), Springs()
    expected = checked(tmp_path / "whole", whole, student, **how)
    with pytest.raises(Killed):
        checked(tmp_path / "parts", Springs(), student, report=kill, **how)
    found = checked(tmp_path / "parts", teacher, student, **how)
    assert teacher.calls == expected["steps"] - 55 + 1
    np.testing.assert_allclose(teacher.last, whole.last, atol=1e-10, rtol=0)
    for name in expected.keys() - {"wall_s", "s_per_ps"}:
        assert found[name] == expected[name], name
    frames = {p.name: p.read_text() for p in (tmp_path / "whole").glob("*.extxyz")}
    assert frames == {p.name: p.read_text() for p in (tmp_path / "parts").glob("*.extxyz")}
    assert bool(frames) == bool(student.push)


def test_bonds_are_held_at_the_averages_of_the_student(tmp_path):
    found = checked(
        tmp_path,
        Springs(),
        Springs(),
        **{"picoseconds": 6.0, "outer_fs": 12.0, "inner_fs": 4.0, "thermostat": "high-pass"},
        friction_per_ps=20.0,
        rigid_water=True,
    )
    lengths_A = found["bond_lengths_A"]
    assert lengths_A == pytest.approx({"O(HH)-H": 0.97, "H-O-H": 1.51}, abs=0.02)
    # over the sum of covalent radii, at every step
    assert found["longest_xh_bond_ratio"] == pytest.approx(lengths_A["O(HH)-H"] / 0.97, abs=1e-6)
    for measured in found["temperature_at_O_K"].values():
        assert abs(measured["mean"] - 300) < 60
    assert problems(found) == []


def test_the_state_of_another_check_is_not_continued(tmp_path):
    checked(tmp_path, Springs(), Springs())
    with pytest.raises(UserError, match=r"seed=3, not 4.*force=True"):
        checked(tmp_path, Springs(), Springs(), seed=4)
    assert checked(tmp_path, Springs(), Springs(), seed=4, force=True)["seed"] == 4
    (tmp_path / STATE_FILE).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UserError, match="cannot be read"):
        checked(tmp_path, Springs(), Springs(), seed=4)


def test_a_student_with_a_hole(tmp_path):
    found = checked(tmp_path, Springs(), Springs(push=100.0), picoseconds=6, equilibrate_ps=0)
    assert found["blown_up_in"] == "dynamics" and found["steps"] < 1000
    assert found["holes"] > 0 and found["max_force_difference_eV_A"] > 3
    assert "blew up in the dynamics" in problems(found)[0] and "hole" in problems(found)[1]
    frames = read(tmp_path / "holes.extxyz", ":")
    assert found["clean_ps"] == pytest.approx(1e-3 * frames[0].info["time_fs"])
    assert all(frame.has("teacher_forces") for frame in frames)


def test_a_student_that_loses_the_structure_at_once(tmp_path):
    found = checked(tmp_path, Springs(), Springs(push=500.0), equilibrate_ps=2.0)
    assert (found["blown_up_in"], found["steps"], found["clean_ps"]) == ("equilibration", 0, 0.0)
    assert found["force_rmse_eV_A"] is None and found["temperature_at_O_K"]["H"] is None
    assert problems(found) == ["the trajectory blew up in the equilibration"]


def test_a_student_alone(tmp_path):
    student = Springs()
    found = checked(tmp_path, None, student, equilibrate_ps=0)
    assert student.calls == 6 * 100 + 1
    assert found["force_rmse_eV_A"] is None and found["clip_events"] is None
    assert found["longest_xh_bond_ratio"] > 1.0 and problems(found) == []


def test_a_single_atom_may_be_hot_without_having_blown_up(tmp_path):
    def nothing(positions, cell):
        return Evaluation(positions.sum() * 0, positions * 0, torch.zeros(3, 3))

    found = check(
        Atoms("Cl"),
        nothing,
        nothing,
        settings(picoseconds=4, outer_fs=80.0, friction_per_ps=500.0, equilibrate_ps=0),
        work=tmp_path,
        report=lambda *_: None,
    )
    # one reading in 600 is above five times the target
    assert problems(found) == [] and found["steps"] == 50
    assert found["temperature_at_O_K"]["heavy"]["mean"] == pytest.approx(300, rel=0.06)
    assert found["temperature_at_O_K"]["heavy"]["atoms"] == 1


def test_solute_and_solvent(structures):
    atoms = read_structure(structures / "ethanol_water200.extxyz")
    groups = force_groups(atoms)
    assert {name: int(mask.sum()) for name, mask in groups.items()} == {
        "all": 609, "C": 2, "H": 406, "O": 201, "solute": 9, "solvent": 600,
    }  # fmt: skip
    weights = solute_weights(atoms)
    assert weights[groups["solvent"]] == pytest.approx(1.0)
    assert weights[groups["solute"]] == pytest.approx((600 / 9) ** 0.5)
    water = read_structure(WATER64)
    assert set(force_groups(water)) == {"all", "H", "O"}
    assert (solute_weights(water) == 1.0).all()


def test_bonds_across_the_cell_and_broken_ones():
    atoms = molecule("C2H6", cell=[8.0] * 3, pbc=True)
    atoms.positions -= atoms.positions[0]
    atoms.wrap(eps=0)
    tally = Tally(atoms, steps=10, labelled=False)

    def look(stretch):
        x = torch.tensor(atoms.positions)
        x[other] += stretch * torch.tensor(bond)
        state = initial_state(x, torch.zeros_like(x), torch.ones(8))
        nothing = Evaluation(torch.zeros(()), torch.zeros_like(x), torch.zeros(3, 3))
        tally.look(replace(state, evaluations={"full": nothing}))
        return tally.results()

    bond = atoms.get_distance(0, 1, mic=True, vector=True)
    other = [1, *(k for k in range(2, 8) if atoms.get_distance(1, k, mic=True) < 1.2)]
    found = look(0.3)
    assert found["longest_heavy_bond_ratio"] == pytest.approx(1.3) and found["broken_bonds"] == 0
    assert found["longest_xh_bond_ratio"] == pytest.approx(1.09 / 1.07, abs=0.02)
    assert look(0.5)["broken_bonds"] == 1
    assert look(0.0)["longest_heavy_bond_ratio"] == pytest.approx(1.5)


def test_a_hydrogen_that_falls_onto_another_molecule():
    atoms = molecule("NH3") + molecule("HF")  # whose hydrogen is the lower one
    atoms.positions[4:] += [0.0, 0.0, 6.0]
    tally = Tally(atoms, steps=10, labelled=False)
    for apart_A, bonds in ((1.6, 0), (1.15, 1), (1.1, 1), (3.0, 1)):
        x = torch.tensor(atoms.positions)
        x[4:] += x[0] + torch.tensor([0.0, 0.0, apart_A]) - x[5]
        state = initial_state(x, torch.zeros_like(x), torch.ones(6))
        nothing = Evaluation(torch.zeros(()), torch.zeros_like(x), torch.zeros(3, 3))
        tally.look(replace(state, evaluations={"full": nothing}))
        found = tally.results()
        assert found["new_bonds"] == ({"N–H": 1} if bonds else {})
        assert found["broken_bonds"] == 0
    found |= {"blown_up": False, "holes": 0, "temperature_at_O_K": {}}
    assert problems(found) == ["bonds between atoms that were apart at the start: 1 N–H"]


def test_a_hot_solute_does_not_hide_in_its_solvent():
    """Methane at 350 K among thirty waters at 300 K; all hydrogens are 4 K off, heavy atoms 2."""
    atoms = molecule("CH4")
    for k in range(30):
        water = molecule("H2O")
        water.positions += [4.0 * (k + 1), 0.0, 0.0]
        atoms += water
    masses = torch.tensor(atoms.get_masses())
    kelvin = torch.full(masses.shape, 300.0, dtype=torch.float64)
    kelvin[:5] = 350.0
    speed = (BOLTZMANN_EV_K * kelvin / masses).sqrt()
    state = initial_state(torch.tensor(atoms.positions), speed[:, None].expand(-1, 3), masses)
    tally = Tally(atoms, steps=400, labelled=False)
    for step in range(1, 401):
        tally.on_op(0, OU(Fraction(1)), state)
        tally.end_step(step)
    found = tally.results() | {"blown_up": False, "holes": 0, "temperature_K": 300.0}
    found |= {"friction_per_ps": 1.0, "hydrogen_friction_per_ps": 1.0, "simulated_ps": 4.0}
    means = {name: round(t["mean"]) for name, t in found["temperature_at_O_K"].items()}
    assert means["solute H"] == means["solute heavy"] == 350
    assert 300 < means["H"] < 305 and 300 < means["all"] < 305
    assert problems(found) == [
        "solute H atoms are +50 K off",
        "solute heavy atoms are +50 K off",
    ]


def test_numbers_that_make_no_sense(tmp_path):
    for choices, words in (
        ({"inner_fs": 4.0}, "no multiple"),
        ({"picoseconds": 0.001}, "less than one outer step"),
        ({"friction_per_ps": -1.0}, "friction_per_ps=-1"),
        ({"temperature_K": np.nan}, "temperature_K=nan"),
        ({"hydrogen_mass_Da": 0.5}, "0.5"),
    ):
        with pytest.raises(UserError, match=words):
            checked(tmp_path, Springs(), Springs(), **choices)


# --- the command


def mts_check(*words):
    app = typer.Typer()
    app.command(cls=Command)(command)
    found = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(found.exception, UserError):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


def test_bad_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("argon.xyz", Atoms("Ar"))
    write("water.xyz", molecule("H2O"))
    Path("done.json").write_text("{}")
    Path("taken").write_text("")
    for words, text in (
        (("nobody", "water.xyz"), "'nobody' is neither a file nor a packaged student"),
        (("water", "nothing.xyz"), "does not exist"),
        (("water", "water.xyz", "--json", "done.json"), "--force"),
        (("water", "water.xyz", "--json", "report"), "must end in .json"),
        (("water", "water.xyz", "--json", "no/report.json"), "'no' does not exist"),
        (("water", "water.xyz", "-o", "taken"), "Not a directory"),
        (("water", "water.xyz", "--outer-fs", "inf"), "--outer-fs inf"),
        (("water", "water.xyz", "--inner-fs", "4"), "no multiple"),
        (("water", "water.xyz", "--teacher", "gpt"), "'gpt' is not known"),
        (("water", "argon.xyz"), "Ar"),
    ):
        with pytest.raises(UserError, match=text):
            mts_check(*words)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "argon.xyz", "done.json", "taken", "water.xyz",
    ]  # fmt: skip


def test_the_shipped_student_with_the_real_teacher(tmp_path, monkeypatch):
    pytest.importorskip("so3krates_torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/mts", "check", "water"])
    words = ("water", WATER64, "--ps", 0.06, "--equilibrate-ps", 0.02)
    assert "no fault in 0.06 ps" in mts_check(*words)
    found = json.loads(Path("water-start-check.json").read_text())
    assert found["steps"] == 10 and found["holes"] == 0 and found["inner_fs"] == 1.0
    assert 0.01 < found["force_rmse_eV_A"]["H"] < found["force_rmse_eV_A"]["O"] < 0.15
    assert found["longest_xh_bond_ratio"] < 1.3 and found["clip_events"] == 0
    for measured in found["temperature_at_O_K"].values():
        assert 200 < measured["mean"] < 400
    assert found["command"] == "mts check water"
    assert [p.name for p in tmp_path.iterdir()] == ["water-start-check.json"]
    with pytest.raises(UserError, match="--force"):
        mts_check(*words)
