"""Atoms of infinite mass stay where they are, and the others do not notice how."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.constraints import FixAtoms

from integrators.bath import Bath
from integrators.engine import conserved_energy, run
from integrators.levels import SingleLevel, TwoLevel
from integrators.propagators import kinetic_energy, still_center
from integrators.splitting import baoab, respa_baoab
from integrators.state import initial_state
from integrators.thermometer import Thermometer
from mts_driver.potentials import load_potential
from mts_driver.simulation.equilibrate import equilibrate
from mts_driver.simulation.relax import relax
from mts_driver.structures.tensors import cell_of, inertial_masses, thermal_velocities

LJ = "ase:ase.calculators.lj:LennardJones?sigma=3.4&epsilon={}&rc=6.0&smooth=True"
HELD = [0, 3]


def argon():
    atoms = bulk("Ar", "fcc", 5.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_constraint(FixAtoms(HELD))
    return atoms


def potential(epsilon=0.0104):
    return load_potential(LJ.format(epsilon), argon().numbers.tolist())


def start(atoms, kelvin=60.0):
    masses = inertial_masses(atoms, atoms.get_masses())
    velocities = thermal_velocities(masses, kelvin, 3)
    return initial_state(torch.tensor(atoms.positions), velocities, masses, cell_of(atoms))


def test_held_atoms_do_not_move_by_a_bit():
    atoms = argon()
    state = start(atoms)
    thermometer = Thermometer({"free": state.masses.isfinite()})
    end = run(
        state,
        TwoLevel(potential(), potential(0.011)),
        respa_baoab(2),
        steps=20,
        timestep=8.0,
        bath=Bath.from_temperature(temperature_K=60.0, friction_per_ps=5.0),
        seed=4,
        on_op=thermometer,
    )
    assert (end.positions[HELD] == state.positions[HELD]).all()
    assert not end.velocities[HELD].any()
    free = state.masses.isfinite()
    assert ((end.positions - state.positions)[free].norm(dim=-1) > 0.01).all()
    assert np.isfinite(thermometer.temperatures_K["free"])
    assert torch.isfinite(end.heat)


def test_they_are_as_heavy_atoms_in_the_limit_and_energy_is_conserved():
    """A crystal whose held atoms have 1e12 times the mass moves alike, without a thermostat."""
    atoms = argon()
    state = start(atoms)
    heavy = state.masses.where(state.masses.isfinite(), 1e12 * 4000.0)
    other = initial_state(state.positions, state.velocities, heavy, state.cell)
    levels, splitting = SingleLevel(potential()), baoab().without_ou()
    ends = [run(s, levels, splitting, steps=200, timestep=2.0) for s in (state, other)]
    torch.testing.assert_close(ends[0].positions, ends[1].positions, rtol=0, atol=1e-8)
    before = conserved_energy(levels.evaluate(state, "full"))
    after = conserved_energy(levels.evaluate(ends[0], "full"))
    assert float(after - before) == pytest.approx(0.0, abs=1e-4)


def test_their_centre_of_mass_rests_and_they_have_no_kinetic_energy():
    state = start(argon())
    assert (still_center(state).velocities == state.velocities).all()
    free = state.masses.isfinite()
    expected = 0.5 * (state.masses[free, None] * state.velocities[free] ** 2).sum()
    assert float(kinetic_energy(state.velocities, state.masses)) == pytest.approx(float(expected))


def test_velocities_of_held_atoms_must_be_zero():
    state = start(argon())
    with pytest.raises(ValueError, match="velocities must be zero"):
        initial_state(state.positions, state.velocities + 1, state.masses, state.cell)


def test_relaxation_and_equilibration_hold_them():
    atoms = argon()
    relaxed, _ = relax(atoms, potential(), steps=5, fmax=1e-6)
    found = equilibrate(
        relaxed,
        atoms.get_masses(),
        potential(),
        temperature_K=60.0,
        picoseconds=0.05,
        timestep_fs=5.0,
        seed=1,
    )
    assert (found.positions[HELD] == atoms.positions[HELD]).all()
    free = [k for k in range(len(atoms)) if k not in HELD]
    assert np.abs(found.positions - atoms.positions)[free].max() > 0.01
