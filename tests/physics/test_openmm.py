"""The same algorithm in another code: OpenMM's MTSLangevinIntegrator (BAOAB-RESPA)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units
from ase.io import read

from integrators.bath import Bath
from integrators.engine import run, step
from integrators.levels import TwoLevel
from integrators.noise import CounterNoise
from integrators.splitting import respa_baoab
from integrators.state import Evaluation, initial_state
from mts_driver.potentials import load_potential
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.tensors import cell_of, thermal_velocities
from mts_driver.units import EV_FS2_A2_PER_AMU

openmm = pytest.importorskip("openmm")
from openmm import unit  # noqa: E402

from mts_driver.interfaces.openmm import add_forces, start_from_ase  # noqa: E402

WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"


def context(masses_Da, slow, fast, *, outer_ps, n, friction_per_ps, temperature_K, cell_nm=None):
    """Two PythonForces in groups 0 and 1; functions take and return OpenMM's units."""
    system = openmm.System()
    for mass in masses_Da:
        system.addParticle(float(mass))
    for group, function in enumerate((slow, fast)):
        force = openmm.PythonForce(lambda state, f=function: f(_positions(state)))
        force.setForceGroup(group)
        system.addForce(force)
    integrator = openmm.MTSLangevinIntegrator(
        temperature_K * unit.kelvin,
        friction_per_ps / unit.picosecond,
        outer_ps * unit.picoseconds,
        [(0, 1), (1, n)],
    )
    platform = openmm.Platform.getPlatformByName("Reference")  # in double precision
    return openmm.Context(system, integrator, platform), integrator


def _positions(state):
    return state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def positions_of(context):
    return _positions(context.getState(getPositions=True))


def test_trajectory_of_teacher_and_student_is_that_of_openmm():
    """Without friction both are deterministic: 64 water molecules, SO3LR every 4 fs."""
    pytest.importorskip("so3krates_torch")
    atoms = read(WATER64)
    atoms.set_array("masses", None)
    numbers = atoms.numbers.tolist()
    teacher, student = (load_potential(m, numbers) for m in ("so3lr", "student:water"))
    cell, n, steps = cell_of(atoms), 4, 4
    masses = torch.tensor(repartitioned_masses(atoms, 4.0) * EV_FS2_A2_PER_AMU)
    velocities = thermal_velocities(masses, 300.0, 1)

    # of natural masses, with the kinetic energies that they have in the run
    heavier = repartitioned_masses(atoms, 4.0) / atoms.get_masses()
    atoms.set_velocities(velocities.numpy() * np.sqrt(heavier)[:, None] / units.fs)
    start = start_from_ase(atoms, hydrogen_mass_Da=4.0)
    forces = add_forces(start.system, start.topology, teacher=teacher, student=student)
    integrator = openmm.MTSLangevinIntegrator(
        300 * unit.kelvin, 0 / unit.picosecond, n * unit.femtosecond, forces.groups(n)
    )
    platform = openmm.Platform.getPlatformByName("Reference")
    theirs = openmm.Context(start.system, integrator, platform)
    theirs.setPositions(start.positions)
    theirs.setVelocities(start.velocities)
    integrator.step(steps)

    state = run(
        initial_state(torch.tensor(atoms.positions), velocities, masses, cell),
        TwoLevel(teacher, student),
        respa_baoab(n).without_ou(),
        steps=steps,
        timestep=float(n),
    )
    moved = np.abs(state.positions.numpy() - atoms.positions).max()
    assert moved > 0.1
    np.testing.assert_allclose(10 * positions_of(theirs), state.positions.numpy(), atol=1e-8)


def test_distribution_is_that_of_openmm_where_the_step_is_too_long():
    """At a quarter of a period both are far from canonical, and by the same."""
    n, outer_ps, friction, atoms, steps = 4, 0.014, 20.0, 400, 2500
    k, q, mass_Da = 1.0e4, 1.0e6, 1.0  # kJ/mol/nm², kJ/mol/nm⁴: a period of 60 fs
    kT = 0.0083144626 * 300.0

    def well(stiff, quartic):
        def compute(x):
            energy = 0.5 * stiff * (x**2).sum() + 0.25 * quartic * (x**4).sum()
            return float(energy), -stiff * x - quartic * x**3

        return compute

    theirs, integrator = context(
        np.full(atoms, mass_Da),
        well(0.2 * k, 0.2 * q),
        well(0.8 * k, 0.8 * q),
        outer_ps=outer_ps,
        n=n,
        friction_per_ps=friction,
        temperature_K=300.0,
    )
    integrator.setRandomNumberSeed(7)
    theirs.setPositions(np.zeros((atoms, 3)))
    theirs.setVelocitiesToTemperature(300.0 * unit.kelvin, 3)

    def tensor_well(stiff, quartic):
        def potential(x, cell):
            energy = 0.5 * stiff * x**2 + 0.25 * quartic * x**4
            return Evaluation(energy.sum((-2, -1)), -stiff * x - quartic * x**3, torch.zeros(3, 3))

        return potential

    # OpenMM's units are consistent among themselves: nm, ps, Da, kJ/mol
    masses = torch.full((atoms,), mass_Da, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    velocities = torch.randn(atoms, 3, generator=generator, dtype=torch.float64) * kT**0.5
    ours = initial_state(torch.zeros(atoms, 3, dtype=torch.float64), velocities, masses)
    levels = TwoLevel(tensor_well(k, q), tensor_well(0.8 * k, 0.8 * q), clip=None)
    bath, noise = Bath(kT=kT, friction=friction), CounterNoise(11)

    found = {"openmm": [], "ours": []}
    for done in range(steps):
        integrator.step(1)
        ours = step(ours, levels, respa_baoab(n), timestep=outer_ps, bath=bath, noise=noise)
        if done >= 200:
            x = positions_of(theirs)
            found["openmm"].append([(x**2).mean(), (x**4).mean()])
            y = ours.positions.numpy()
            found["ours"].append([(y**2).mean(), (y**4).mean()])

    def mean_and_error(values, blocks=14):
        means = np.array([block.mean(0) for block in np.array_split(np.array(values), blocks)])
        return means.mean(0), means.std(0, ddof=1) / blocks**0.5

    (a, da), (b, db) = (mean_and_error(found[name]) for name in ("openmm", "ours"))
    assert np.all(np.abs(a - b) < 4 * np.hypot(da, db)), (a, b, da, db)
    x = np.linspace(-0.15, 0.15, 6001)
    p = np.exp(-(0.5 * k * x**2 + 0.25 * q * x**4) / kT)
    exact = np.array([(p * x**m).sum() / p.sum() for m in (2, 4)])
    assert np.all(np.abs(a - exact) > 6 * da), "a test at this step says more than one that agrees"
    assert np.all(np.hypot(da, db) < 0.02 * a)
