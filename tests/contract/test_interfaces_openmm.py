"""Teacher and student as two force groups of OpenMM, and its integrator on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.io import read
from running import toy_water
from toy_calculators import NoForces, ToyWater

from integrators.levels import DEFAULT_CLIP
from integrators.state import Evaluation
from mts_driver import load_potential, simulate
from mts_driver.analysis.statistics import block_average
from mts_driver.errors import UserError
from mts_driver.structures.tensors import cell_of

openmm = pytest.importorskip("openmm")
from openmm import unit  # noqa: E402

from mts_driver.interfaces.openmm import add_forces, start_from_ase  # noqa: E402

ROOT = Path(__file__).parents[2]
WATER64 = ROOT / "inputs/water64/start.extxyz"
EV = 96.48533212  # kJ/mol: e times Avogadro's number, CODATA 2018
EV_A = 10 * EV
TOY = {"teacher": ToyWater(), "student": ToyWater(scale=1.02)}


def context_of(start, integrator=None, platform="Reference"):
    integrator = integrator or openmm.VerletIntegrator(0.001)
    kind = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(start.system, integrator, kind)
    context.setPositions(start.positions)
    if start.velocities is not None:
        context.setVelocities(start.velocities)
    return context


def in_eV(context, group):
    """Energy, eV, and forces (N, 3), eV/Å, of a group."""
    state = context.getState(energy=True, forces=True, groups={group})
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True)
    return energy / EV, forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer) / EV_A


def total_eV(context):
    state = context.getState(energy=True)
    total = state.getPotentialEnergy() + state.getKineticEnergy()
    return total.value_in_unit(unit.kilojoule_per_mole) / EV


def positions_A(context):
    state = context.getState(positions=True)
    return state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)


def sheared_water():
    """Eight molecules in a cell that leans over, and that no code has in its own form."""
    cell = np.array([[6.3, 0, 0], [2.4, 6.4, 0], [-2.6, 1.9, 6.2]])
    sites = (np.array(list(np.ndindex(2, 2, 2))) + 0.2) / 2 @ cell
    atoms = toy_water()
    for k, site in enumerate(sites):
        atoms.positions[3 * k : 3 * k + 3] += site - atoms.positions[3 * k]
    atoms.set_cell(cell)
    atoms.set_cell(np.array([cell[0], cell[1] + 2 * cell[0], cell[2] - cell[1]]))
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    return atoms


def displaced(atoms):
    """Molecules in other cells, and hydrogens in other cells than their oxygens."""
    moved, rng = atoms.copy(), np.random.default_rng(4)
    cells = np.repeat(rng.integers(-2, 3, (len(atoms) // 3, 3)), 3, axis=0)
    cells[1::6] += rng.integers(-1, 2, (len(cells[1::6]), 3))
    moved.positions += cells @ atoms.cell.array
    return moved


@pytest.mark.parametrize(
    ("atoms", "student", "platform"),
    [
        (toy_water(), "water", "CPU"),
        (sheared_water(), "water", "Reference"),
        (molecule("CH3OH"), "general", "Reference"),
    ],
    ids=["box", "sheared", "isolated"],
)
def test_both_groups_are_our_potentials_wherever_the_atoms_are(atoms, student, platform):
    pytest.importorskip("so3krates_torch")
    names = {"teacher": "so3lr", "student": f"student:{student}"}
    models = {
        role: load_potential(spec, atoms.numbers.tolist(), dtype="float64")
        for role, spec in names.items()
    }
    x, cell = torch.tensor(atoms.positions), cell_of(atoms)
    slow, fast = (model(x, cell) for model in models.values())
    atoms = atoms.copy()
    atoms.set_array("masses", None)
    start = start_from_ase(displaced(atoms) if atoms.pbc.all() else atoms)
    given = names if platform == "CPU" else models
    forces = add_forces(start.system, start.topology, **given, dtype="float64")
    context = context_of(start, platform=platform)
    turn = np.eye(3)
    if atoms.pbc.all():
        turn = atoms.cell.standard_form()[1].T
        assert not np.allclose(positions_A(context), atoms.positions @ turn)
    for group, energy, force in (
        (forces.fast_group, fast.energy, fast.forces),
        (forces.slow_group, slow.energy - fast.energy, slow.forces - fast.forces),
    ):
        found_eV, found = in_eV(context, group)
        assert found_eV == pytest.approx(float(energy), rel=1e-6)
        np.testing.assert_allclose(
            found, force.numpy() @ turn, rtol=0, atol=1e-6 * float(force.abs().max())
        )
    largest = float((slow.forces - fast.forces).norm(dim=1).max())
    assert forces.max_force_difference_eV_A == pytest.approx(largest, rel=1e-6)
    assert forces.clip_events == 0


def test_its_trajectory_and_its_energy_are_those_of_simulate():
    """Without friction: a drop of water, hydrogens of 4 Da, SO3LR every 6 fs."""
    pytest.importorskip("so3krates_torch")
    atoms, steps = read(WATER64)[:18], 3
    atoms.set_array("masses", None)
    atoms.pbc, atoms.cell = False, None
    start = start_from_ase(atoms, hydrogen_mass_Da=4)
    masses = np.array([start.system.getParticleMass(k)._value for k in range(len(atoms))])
    assert set(masses[atoms.numbers == 1]) == {4.0}
    momenta = np.random.default_rng(1).normal(size=(len(atoms), 3))
    momenta *= np.sqrt(masses * units.kB * 300)[:, None]
    momenta -= masses[:, None] * momenta.sum(0) / masses.sum()
    # which every atom has when it is as heavy as in the run, at the same kinetic energy
    atoms.set_velocities(momenta / np.sqrt(masses * atoms.get_masses())[:, None])
    start = start_from_ase(atoms, hydrogen_mass_Da=4)
    ours = simulate(
        atoms,
        steps=steps,
        stride=1,
        friction_per_ps=0.0,
        progress=False,
    )
    forces = add_forces(start.system, start.topology, teacher="so3lr")
    integrator = openmm.MTSLangevinIntegrator(
        300 * unit.kelvin, 0 / unit.picosecond, 6 * unit.femtosecond, forces.groups(6)
    )
    context = context_of(start, integrator)
    totals = [total_eV(context)]
    for _ in range(steps):
        integrator.step(1)
        totals.append(total_eV(context))
    np.testing.assert_allclose(positions_A(context), ours.atoms.positions, rtol=0, atol=1e-9)
    conserved = ours.properties["conserved_energy_eV"]
    np.testing.assert_allclose(np.diff(totals), np.diff(conserved), rtol=0, atol=1e-8)
    assert 1e-3 < np.ptp(totals) < 1e-3 * len(atoms)
    assert forces.max_force_difference_eV_A == pytest.approx(
        ours.holes.max_force_difference_eV_A, rel=1e-4
    )


def toy_start(atoms=None, **choices):
    start = start_from_ase(atoms or toy_water())
    return start, add_forces(start.system, start.topology, **TOY | choices)


def mts(forces, *, outer_fs=4.0, n=4, friction=0.0):
    return openmm.MTSLangevinIntegrator(
        300 * unit.kelvin, friction / unit.picosecond, outer_fs * unit.femtosecond, forces.groups(n)
    )


def test_each_model_is_asked_once_a_step_and_energies_cost_nothing():
    models = {"teacher": ToyWater(), "student": ToyWater(scale=1.02)}
    start, forces = toy_start(**models)
    integrator = mts(forces)
    context = context_of(start, integrator)
    for _ in range(5):
        integrator.step(1)
        context.getState(energy=True, forces=True)
    assert models["teacher"].calls == 1 + 5
    assert models["student"].calls == 1 + 5 * 4


def test_what_is_clipped_is_the_force_and_not_the_energy():
    """And it is counted, as in the same steps of `simulate`."""
    atoms = toy_water()
    atoms.positions += np.random.default_rng(3).normal(scale=0.05, size=(len(atoms), 3))
    atoms.set_velocities(np.zeros((len(atoms), 3)))
    models = {"teacher": ToyWater(), "student": ToyWater(scale=4.0)}
    start, forces = toy_start(atoms, **models)
    integrator = mts(forces, outer_fs=1.0, n=2)
    context = context_of(start, integrator)
    energy, found = in_eV(context, forces.slow_group)
    results = []
    for model in models.values():
        atoms.calc = model
        results.append((atoms.get_potential_energy(), atoms.get_forces()))
    difference = results[0][1] - results[1][1]
    norms = np.linalg.norm(difference, axis=1)
    assert (norms > DEFAULT_CLIP).any() and (norms < DEFAULT_CLIP).any()
    expected = difference * np.minimum(1, DEFAULT_CLIP / norms)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert energy == pytest.approx(results[0][0] - results[1][0], rel=1e-6)
    integrator.step(3)
    atoms.calc = None
    options = {"outer_fs": 1.0, "inner_fs": 0.5, "friction_per_ps": 0.0, "hydrogen_mass_Da": 0.0}
    atoms.set_momenta(np.full((len(atoms), 3), 1e-12))  # at rest, and not drawn
    ours = simulate(atoms, steps=3, progress=False, **options, **models)
    assert forces.clip_events == ours.holes.clip_events > 0
    assert forces.max_force_difference_eV_A == pytest.approx(
        ours.holes.max_force_difference_eV_A, rel=1e-6
    )


def test_without_a_student_there_is_one_group():
    start, forces = toy_start(student=None)
    assert forces.slow_group is None and forces.groups() == [(1, 1)]
    context = context_of(start, mts(forces, outer_fs=1.0, n=1))
    atoms = toy_water()
    atoms.calc = ToyWater()
    energy, found = in_eV(context, forces.fast_group)
    np.testing.assert_allclose(found, atoms.get_forces(), rtol=1e-6, atol=1e-9)
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
    assert total_eV(context) == pytest.approx(energy)
    with pytest.raises(UserError, match="inner_steps=4"):
        forces.groups(4)


def test_held_atoms_constraints_and_restraints_are_kept():
    atoms = toy_water()
    atoms.set_constraint(FixAtoms([0, 4]))
    start = start_from_ase(atoms)
    bond_nm = 0.1 * atoms.get_distance(3, 5)
    start.system.addConstraint(3, 5, bond_nm)
    restraint = openmm.CustomExternalForce("500*(x-5)^2")
    restraint.addParticle(9)
    start.system.addForce(restraint)
    start.system.addForce(openmm.CMMotionRemover())
    forces = add_forces(start.system, start.topology, **TOY)
    integrator = mts(forces, friction=5.0)
    integrator.setRandomNumberSeed(1)
    context = context_of(start, integrator)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    before = positions_A(context)
    integrator.step(20)
    after = positions_A(context)
    moved = np.linalg.norm(after - before, axis=1)
    assert moved[[0, 4]].max() == 0 and np.delete(moved, [0, 4]).min() > 1e-3
    assert np.linalg.norm(after[5] - after[3]) == pytest.approx(10 * bond_nm, rel=1e-4)
    assert after[9, 0] - before[9, 0] > 1  # pulled towards 50 Å


class PV:
    """U = p V, and no forces."""

    def __init__(self, p_eV_A3):
        self.p = p_eV_A3

    def __call__(self, x, cell):
        energy = self.p * torch.linalg.det(cell)
        return Evaluation(energy, torch.zeros_like(x), torch.zeros(3, 3))


def test_a_barostat_sees_both_energies_and_moves_whole_molecules():
    """An ideal gas of molecules in an inner pressure: <V> = (M + 1) kT/(P + p)."""
    pairs, kT = 20, units.kB * 300
    centres = 6.0 * np.array(list(np.ndindex(5, 5, 5)))[:pairs]
    positions = np.concatenate([centres, centres + np.array([0.7, 0, 0])])
    atoms = Atoms(f"H{2 * pairs}", positions, cell=[30] * 3, pbc=True)
    start = start_from_ase(atoms)
    topology = start.topology
    assert topology.getNumBonds() == pairs  # by distance
    bar = 1e5 * units.Pascal
    barostat = openmm.MonteCarloBarostat(20.0, 300 * unit.kelvin, 1)
    barostat.setRandomNumberSeed(3)
    start.system.addForce(barostat)
    # half of the pressure is the barostat's, and a quarter each model's
    forces = add_forces(start.system, topology, teacher=PV(20 * bar), student=PV(10 * bar))
    integrator = openmm.MTSIntegrator(1e-9 * unit.femtosecond, forces.groups(1))
    context = context_of(start, integrator)
    assert context.getMolecules() == tuple((k, k + pairs) for k in range(pairs))
    volumes = []
    for _ in range(1600):
        integrator.step(1)
        volumes.append(context.getState().getPeriodicBoxVolume() / unit.angstrom**3)
    found = block_average(volumes[200:])
    expected = (pairs + 1) * kT / (40 * bar)
    assert found.stderr < 0.08 * expected
    assert abs(found.mean - expected) < 4 * found.stderr
    lengths = np.linalg.norm(np.subtract(*np.split(positions_A(context), 2)), axis=1)
    np.testing.assert_allclose(lengths, 0.7, rtol=1e-6)


def test_another_box_around_the_same_positions_is_seen():
    start = start_from_ase(Atoms("He2", [[0, 0, 0], [0, 0, 3]], cell=[10] * 3, pbc=True))
    forces = add_forces(start.system, start.topology, teacher=PV(0.003), student=PV(0.001))
    context = context_of(start)
    for length_nm in (1.0, 2.0):
        context.setPeriodicBoxVectors(*(length_nm * np.eye(3)))
        volume = (10 * length_nm) ** 3
        assert in_eV(context, forces.slow_group)[0] == pytest.approx(0.002 * volume)
        assert in_eV(context, forces.fast_group)[0] == pytest.approx(0.001 * volume)


def test_what_goes_wrong_on_the_way_is_said_in_a_sentence():
    start, _ = toy_start(teacher=ToyWater(nan_after=1))
    context = context_of(start)
    context.getState(energy=True)
    context.setPositions(1.01 * start.positions)
    with pytest.raises(openmm.OpenMMException, match="the teacher returned forces that are not"):
        context.getState(energy=True)
    context.setPositions(np.nan * start.positions)
    with pytest.raises(openmm.OpenMMException, match="positions are not finite"):
        context.getState(energy=True)
    other = load_potential("student:water", [8, 1, 1])
    start, _ = toy_start(student=lambda x, cell: other(x[:3], cell))
    with pytest.raises(openmm.OpenMMException, match="potential of other atoms"):
        context_of(start).getState(energy=True)


def test_a_system_with_a_model_is_not_written():
    start, _ = toy_start()
    with pytest.raises(openmm.OpenMMException, match="could not be pickled"):
        openmm.XmlSerializer.serialize(start.system)


def test_a_start_from_ase_keeps_what_the_atoms_say():
    atoms = sheared_water()
    atoms.positions[-3:] += atoms.cell.array[1]
    atoms.set_masses([2.014 if k == 1 else None for k in range(len(atoms))])
    atoms.set_constraint(FixAtoms([6]))
    atoms.set_velocities(np.random.default_rng(1).normal(size=(len(atoms), 3)))
    atoms.info["charge"] = -1
    atoms.info["multiplicity"] = 2
    with pytest.warns(UserWarning, match="masses of the file are kept"):
        start = start_from_ase(atoms)
    mass = [start.system.getParticleMass(k) / unit.dalton for k in range(9)]
    assert mass == pytest.approx([15.999, 2.014, 1.008, 15.999, 1.008, 1.008, 0, 1.008, 1.008])
    assert start.topology.getNumBonds() == 16 and start.topology.getNumResidues() == 8
    assert {r.name for r in start.topology.residues()} == {"HOH"}
    assert (start.charge, start.multiplicity) == (-1, 2)
    turn = atoms.cell.standard_form()[1].T
    expected = atoms.get_velocities() * units.fs @ turn  # Å/fs
    expected[6] = 0
    in_A_fs = start.velocities.value_in_unit(unit.angstrom / unit.femtosecond)
    np.testing.assert_allclose(in_A_fs, expected, atol=1e-12)
    box = [list(v / unit.angstrom) for v in start.system.getDefaultPeriodicBoxVectors()]
    lattice = np.linalg.solve((atoms.cell.array @ turn).T, np.array(box).T)
    np.testing.assert_allclose(lattice, np.round(lattice), atol=1e-9)
    assert abs(np.linalg.det(lattice)) == pytest.approx(1)


def virtual(start):
    start.system.setParticleMass(2, 0)
    start.system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))


def massless(start):
    for k in range(start.system.getNumParticles()):
        start.system.setParticleMass(k, 0)


def formal(start):
    next(start.topology.atoms()).formalCharge = -1


def in_another_group(start):
    force = openmm.CustomExternalForce("x")
    force.setForceGroup(5)
    start.system.addForce(force)


def barostat_without_bonds(start):
    start.topology._bonds.clear()
    start.system.addForce(openmm.MonteCarloBarostat(1, 300))


def larger_box(start):
    start.system.setDefaultPeriodicBoxVectors([3, 0, 0], [0, 3, 0], [0, 0, 3])


def change(name, value):
    return lambda start: start.__dict__.update({name: value})


@pytest.mark.parametrize(
    ("do", "choice", "named"),
    [
        (change("system", "water"), {}, "system is str"),
        (change("topology", None), {}, "topology is NoneType"),
        (lambda s: s.system.addParticle(1), {}, "25 particles and topology 24 atoms"),
        (lambda s: setattr(next(s.topology.atoms()), "element", None), {}, "no element"),
        (virtual, {}, "particle 2 is a virtual site"),
        (massless, {}, "all masses are 0"),
        (lambda s: s.system.addForce(openmm.NonbondedForce()), {}, "NonbondedForce"),
        (lambda s: s.system.addForce(openmm.HarmonicBondForce()), {}, "HarmonicBondForce"),
        (in_another_group, {}, "force group 5"),
        (barostat_without_bonds, {}, "MonteCarloBarostat"),
        (larger_box, {}, "system [[3.0"),
        (lambda s: s.topology.setPeriodicBoxVectors(None), {}, "topology has no box"),
        (lambda s: add_forces(s.system, s.topology, **TOY), {}, "add_forces once"),
        (None, {"charge": 0.5}, "charge=0.5"),
        (formal, {"charge": 1}, "formal charges of topology sum to -1"),
        (None, {"teacher": "so3lr", "multiplicity": 3}, "multiplicity 3"),
        (formal, {"multiplicity": 1}, "multiplicity 1"),
        (None, {"multiplicity": 0}, "multiplicity=0"),
        (None, {"slow_group": 32}, "slow_group=32"),
        (None, {"slow_group": 1}, "slow_group=1 is fast_group"),
        (None, {"teacher": "nobody"}, "nobody"),
        (None, {"teacher": NoForces()}, "gives no forces"),
        (None, {"student": "nobody"}, "nobody"),
        (None, {"student": ToyWater}, "student="),
        (None, {"student": "water", "dtype": "float16"}, "dtype='float16'"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_nothing_is_added(do, choice, named):
    start = start_from_ase(toy_water())
    if do:
        do(start)
    known = isinstance(start.system, openmm.System)
    before = start.system.getNumForces() if known else None
    with pytest.raises(UserError) as refused:
        add_forces(start.system, start.topology, **TOY | choice)
    assert named in str(refused.value)
    assert not known or start.system.getNumForces() == before


def test_elements_that_a_model_does_not_know_are_named():
    pytest.importorskip("so3krates_torch")
    salt = start_from_ase(Atoms("NaCl", [[0, 0, 0], [2.4, 0, 0]]))
    with pytest.raises(UserError, match="element Na"):
        add_forces(salt.system, salt.topology, teacher="so3lr", student=None)


def test_charges_reach_the_model():
    """Of the topology, or of the parameter; an odd number of electrons is told."""
    pytest.importorskip("so3krates_torch")
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    expected = [
        float(
            load_potential(spec, [8, 1])(
                torch.tensor(atoms.positions), torch.zeros(3, 3, dtype=torch.float64)
            ).energy
        )
        for spec in ("so3lr?charge=-1", "so3lr")
    ]
    assert abs(expected[0] - expected[1]) > 0.1
    atoms.info["charge"] = -1
    said, summed = start_from_ase(atoms), start_from_ase(atoms)
    options = {"teacher": "so3lr", "student": None}
    add_forces(said.system, said.topology, charge=said.charge, **options)
    add_forces(summed.system, summed.topology, **options)
    for start in (said, summed):
        assert in_eV(context_of(start), 1)[0] == pytest.approx(expected[0], rel=1e-6)
    forgotten = start_from_ase(Atoms(atoms.numbers, atoms.positions))
    with pytest.warns(UserWarning, match="9 electrons, an odd number"):
        add_forces(forgotten.system, forgotten.topology, **TOY)
