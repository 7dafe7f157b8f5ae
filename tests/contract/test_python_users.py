"""What users of Python do with our objects: honoured, or refused by a sentence."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLengths
from ase.io import read
from running import HERE

import mts_driver
from mts_driver.errors import UserError
from mts_driver.interfaces.ase import PotentialCalculator, RespaBAOAB
from mts_driver.potentials import load_potential
from mts_driver.structures.tensors import cell_of

WATER64 = HERE.parents[1] / "inputs" / "water64" / "start.extxyz"
LJ = "ase:ase.calculators.lj:LennardJones?sigma=3.405&epsilon=0.010323&rc=5.0&smooth=True"
STUDENTS = {"teacher": "student:general", "student": "student:water", "progress": False}


def dimer():
    one, other = molecule("H2O"), molecule("H2O")
    other.positions += [2.9, 0.3, 0.2]
    return one + other


def thermal(atoms, kelvin=300.0):
    velocities = np.random.default_rng(1).normal(size=(len(atoms), 3))
    atoms.set_velocities(velocities * np.sqrt(units.kB * kelvin / atoms.get_masses())[:, None])
    return atoms


@pytest.mark.parametrize("heavier_Da", [0.0, 4.0])
def test_velocities_of_other_masses_keep_their_kinetic_energy(tmp_path, heavier_Da):
    """With natural masses, and back from the frame of a run with heavy hydrogens."""
    atoms = thermal(Atoms(dimer().numbers, dimer().positions))
    options = {"outer_fs": 1.0, "steps": 1, "stride": 1, **STUDENTS}
    run = mts_driver.simulate(atoms, hydrogen_mass_Da=heavier_Da, **options)
    energy = run.properties["kinetic_energy_eV"][0]
    # the centre of mass is stopped
    assert energy == pytest.approx(atoms.get_kinetic_energy(), rel=0.3)
    again = mts_driver.simulate(run.atoms, hydrogen_mass_Da=3.0, **options)
    kept = again.properties["kinetic_energy_eV"][0]
    assert kept == pytest.approx(run.atoms.get_kinetic_energy(), rel=1e-6)
    prepared = mts_driver.prepare(
        atoms, tmp_path / "run", teacher="student:general", student="student:water",
        hydrogen_mass_Da=heavier_Da, velocities="keep", equilibrate_ps=0, steps=1,
    )  # fmt: skip
    rows = (prepared.input.parent / "velocities.xyz").read_text().splitlines()[2:]
    A_fs = 21.8769126379  # of the atomic unit of velocity
    v = np.array([row.split()[1:] for row in rows], float) * A_fs / units.fs
    start = read(prepared.input.parent / "start.extxyz")
    found = 0.5 * (start.get_masses() * (v**2).sum(1)).sum()
    assert found == pytest.approx(atoms.get_kinetic_energy(), rel=1e-6)


def test_a_calculator_of_ours_refuses_what_it_cannot_know():
    slab = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    slab.calc = PotentialCalculator(load_potential("ase:ase.calculators.emt:EMT", slab.numbers))
    with pytest.raises(UserError, match=r"pbc=\[True, True, False\]"):
        slab.get_potential_energy()
    swapped = dimer()[[1, 0, 2, 3, 4, 5]]
    swapped.calc = PotentialCalculator(load_potential("student:water", dimer().numbers))
    with pytest.raises(UserError, match="another order"):
        swapped.get_potential_energy()
    water = read(WATER64)
    of_tip3p = load_potential("ase:ase.calculators.tip3p:TIP3P?rc=4.5", water.numbers)
    water.calc = PotentialCalculator(of_tip3p)
    water.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        water.get_stress()


@pytest.mark.parametrize("spec", ["student:water", "so3lr"])
@pytest.mark.parametrize("backend", ["cpu", "device"])
def test_shapes_and_numbers_are_looked_at_before_kernels(spec, backend):
    atoms = read(WATER64)
    potential = load_potential(f"{spec}?backend={backend}", atoms.numbers)
    x, cell = torch.tensor(atoms.positions), cell_of(atoms)
    with pytest.raises(UserError, match="bound to 192 atoms"):
        potential(x[:9], cell)
    x[5, 0] = torch.nan
    with pytest.raises(UserError, match="positions are not finite"):
        potential(x, cell)


def argon(calculator=None):
    atoms = thermal(bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2), 90.0)
    atoms.calc = calculator or LennardJones(sigma=3.405, epsilon=0.010323, rc=5.2, smooth=True)
    return atoms


def dynamics(atoms):
    how = {"timestep": 20 * units.fs, "inner_steps": 4, "temperature_K": 90, "friction": 0}
    return RespaBAOAB(atoms, student=LJ, **how)


def test_what_is_changed_between_steps_is_honoured():
    atoms = argon()
    run = dynamics(atoms)
    run.run(1)
    run.dt = 1 * units.fs
    atoms.set_masses(4 * atoms.get_masses())
    atoms.set_momenta(2 * atoms.get_momenta())
    atoms.calc = LennardJones(sigma=3.405, epsilon=0.02, rc=5.2, smooth=True)
    fresh = atoms.copy()
    fresh.calc = LennardJones(sigma=3.405, epsilon=0.02, rc=5.2, smooth=True)
    run.run(3)
    how = {"inner_steps": 4, "temperature_K": 90, "friction": 0}
    RespaBAOAB(fresh, 1 * units.fs, student=LJ, **how).run(3)
    np.testing.assert_allclose(atoms.positions, fresh.positions, rtol=0, atol=1e-12)


def test_what_cannot_be_honoured_between_steps_is_refused():
    for change, message in (
        (lambda a: a.set_constraint(FixBondLengths([[0, 1]])), "FixBondLengths"),
        (lambda a: a.set_constraint(FixAtoms(range(len(a)))), "holds all of its atoms"),
        (lambda a: a.set_atomic_numbers([10] + [18] * 31), "other elements"),
        (lambda a: a.set_pbc([True, True, False]), "periodic"),
    ):
        atoms = argon()
        run = dynamics(atoms)
        run.run(1)
        change(atoms)
        with pytest.raises(UserError, match=message):
            run.run(1)


def test_arguments_that_cannot_be(tmp_path):
    both = {"trajectory": "same.xyz", "checkpoint": "same.xyz"}
    for options, message in (
        ({"temperature_K": "300"}, "temperature_K='300': give a number"),
        ({"outer_fs": None}, "outer_fs=None: give a number"),
        ({"friction_per_ps": np.ones(6)}, "friction_per_ps=.*: give a number"),
        ({"steps": np.float64(3.0)}, "give a whole number"),
        ({"trajectory": "run.traj"}, r"ends in .extxyz or .xyz"),
        (both, "give two files"),
    ):
        with pytest.raises(UserError, match=message):
            mts_driver.simulate(dimer(), **{"steps": 1, **STUDENTS, **options})
    with pytest.raises(UserError, match="so3lr:charge=-2' is not known"):
        load_potential("so3lr:charge=-2", [8])
    with pytest.raises(UserError, match="are no atomic numbers"):
        load_potential("student:water", ["O", "H"])
    with pytest.raises(UserError, match="simulate takes objects"):
        mts_driver.prepare(dimer(), tmp_path / "run", teacher=EMT())
    with pytest.raises(UserError, match="structure is Atoms: give the path"):
        mts_driver.resonance(dimer())
    with pytest.raises(UserError, match="give at least one of each"):
        mts_driver.resonance(WATER64, outer_fs=[], json_file=tmp_path / "scan.json")


def test_numbers_of_numpy_are_numbers():
    run = mts_driver.simulate(dimer(), steps=np.int64(2), seed=np.int64(1), **STUDENTS)
    assert len(run.atoms) == 6


def test_a_charge_reaches_openmm_through_the_topology():
    openmm = pytest.importorskip("openmm")
    from mts_driver.interfaces.openmm import start_from_ase

    assert openmm.Platform.getNumPlatforms() > 0
    ion = Atoms("OH3", [[0, 0, 0.1], [0, 0.95, -0.2], [0.82, -0.47, -0.2], [-0.82, -0.47, -0.2]])
    ion.info["charge"] = 1
    start = start_from_ase(ion)
    assert sum(atom.formalCharge for atom in start.topology.atoms()) == start.charge == 1
    radical = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"multiplicity": 2})
    with pytest.warns(UserWarning, match="give it to add_forces"):
        start_from_ase(radical)


def test_a_pattern_of_spins_that_is_not_handed_on_is_told():
    argons = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]], magmoms=[2.0, -2.0])
    how = {"student": None, "outer_fs": 1, "steps": 1, "progress": False}
    with pytest.warns(UserWarning, match="their pattern is not used"):
        mts_driver.simulate(argons, teacher=LJ, **how)
