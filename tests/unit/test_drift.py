"""NVE-RESPA drift where its size is known: springs, and students that are wrong on purpose."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from analytic import Analytic
from ase import Atoms
from ase.constraints import FixAtoms

from integrators.constraints import Distances
from integrators.engine import conserved_energy
from integrators.levels import TwoLevel
from integrators.state import Evaluation
from mts_driver.errors import UserError
from mts_driver.simulation.nve import _energy_per_atom, nve_start
from mts_driver.units import BOLTZMANN_EV_K, EV_FS2_A2_PER_AMU
from mts_driver.validation.drift import (
    nve_respa_drift,
    predicted_heating_K,
)

OH_EV_A2 = 48.0
"""With hydrogens of 4 Da the period is 16.2 fs: an outer step of 8 fs meets half of it."""


def hydroxides(count=12):
    """O-H pairs so far apart that only their springs act."""
    atoms = Atoms()
    for k in range(count):
        atoms += Atoms("OH", [[10.0 * k, 0, 0], [10.0 * k + 0.97, 0, 0]])
    return atoms


def springs(k_eV_A2):
    def energy(x):
        lengths = (x[..., 1::2, :] - x[..., ::2, :]).norm(dim=-1)
        return 0.5 * k_eV_A2 * (lengths - 0.97).square().sum(-1)

    return Analytic(energy)


def test_a_perfect_student_does_not_drift():
    teacher, student = springs(OH_EV_A2), springs(OH_EV_A2)
    steps = []
    found = nve_respa_drift(
        [hydroxides()],
        teacher,
        student,
        outer_fs=8.0,
        seeds=(1, 2),
        report=lambda what, done, total: steps.append((what, done, total)),
    )
    # what is left is the beat of the bounded error of the inner step with the outer one
    assert abs(found.mean) < 0.15 and found.standard_error < 0.05
    assert found.max_force_difference_eV_A == 0.0
    assert found.clip_events == found.blown_up == 0
    assert teacher.calls == 2 * (250 + 1) and student.calls == 2 * (8 * 250 + 1)
    assert steps[-1] == ("NVE drift at 8 fs", 500, 500)


def test_a_soft_student_drifts_at_half_a_period_and_not_below():
    teacher, soft = springs(OH_EV_A2), springs(0.95 * OH_EV_A2)
    found = {
        outer_fs: nve_respa_drift(
            [hydroxides()], teacher, soft, outer_fs=outer_fs, picoseconds=1.0, seeds=(1, 2)
        )
        for outer_fs in (4.0, 8.0)
    }
    assert abs(found[4.0].mean) < 1.0
    assert found[8.0].mean > 20.0
    assert found[8.0].as_dict()["blown_up"] == found[8.0].blown_up
    assert found[8.0].max_force_difference_eV_A > found[4.0].max_force_difference_eV_A > 0


def test_a_run_that_blows_up_is_reported_and_ends_early():
    teacher = springs(OH_EV_A2)
    found = nve_respa_drift([hydroxides()], teacher, springs(0.5 * OH_EV_A2), outer_fs=8.0)
    assert math.isinf(found.mean) and found.blown_up == 3
    assert math.isnan(found.standard_error)
    assert found.as_dict()["mean"] is None and found.as_dict()["values"] == [None] * 3
    assert teacher.calls < 3 * 200


@pytest.mark.parametrize("force", [math.nan, 1e6])
def test_atoms_are_not_followed_to_nowhere(force):
    def wrong(positions, cell):
        assert positions.abs().max() < 1e3
        forces = torch.full_like(positions, force)
        forces[::2] *= -1
        return Evaluation(positions.sum(), forces, torch.zeros(3, 3))

    found = nve_respa_drift([hydroxides(2)], springs(OH_EV_A2), wrong, outer_fs=6.0, seeds=(1,))
    assert math.isinf(found.mean)


def test_velocities_are_those_of_the_temperature():
    water = Atoms("OHH" * 400, np.random.default_rng(0).normal(size=(1200, 3)) * 0.01)
    water.positions += np.repeat(np.arange(400)[:, None] * 5.0, 3, 0)
    water.positions[1::3, 0] += 0.97
    water.positions[2::3, 1] += 0.97
    state, _ = nve_start(water, temperature_K=300.0, hydrogen_mass_Da=4.0, seed=3)
    assert state.masses[1::3].numpy() == pytest.approx(4.0 * EV_FS2_A2_PER_AMU)
    assert state.masses.sum() == pytest.approx(water.get_masses().sum() * EV_FS2_A2_PER_AMU)
    momentum = (state.masses[:, None] * state.velocities).sum(0)
    assert momentum.abs().max() < 1e-9
    twice_kinetic = (state.masses[:, None] * state.velocities.square()).sum(0)
    assert twice_kinetic.mean() / 1200 / BOLTZMANN_EV_K == pytest.approx(300.0, rel=0.05)

    nitrogen, _ = nve_start(
        Atoms("N2", [[0, 0, 0], [1.1, 0, 0]]), temperature_K=300.0, hydrogen_mass_Da=4.0, seed=1
    )
    assert nitrogen.masses.numpy() == pytest.approx(14.007 * EV_FS2_A2_PER_AMU, rel=1e-4)


def held(atoms, length_A=0.97):
    pairs = np.arange(len(atoms)).reshape(-1, 2)
    return Distances(pairs, np.full(len(pairs), length_A))


def test_held_bonds_take_no_heat_and_leave_the_resonance_out():
    """A student whose bonds are soft costs nothing at 8 fs if they cannot stretch."""
    atoms = hydroxides()
    found = nve_respa_drift(
        [atoms],
        springs(OH_EV_A2),
        springs(0.95 * OH_EV_A2),
        outer_fs=8.0,
        inner_fs=2.0,
        held=held(atoms, 0.95),
        seeds=(1,),
    )
    assert abs(found.mean) < 1e-6 and found.blown_up == 0
    assert found.degrees_per_atom == pytest.approx((3 * 24 - 3 - 12) / 24)


def test_a_run_that_loses_held_bonds_blew_up():
    def thrown(positions, cell):
        forces = torch.zeros_like(positions)
        forces[1::2, 1], forces[::2, 1] = 1e3, -1e3
        return Evaluation(positions.sum(), forces, torch.zeros(3, 3))

    atoms = hydroxides(2)
    found = nve_respa_drift(
        [atoms], thrown, thrown, outer_fs=6.0, inner_fs=2.0, held=held(atoms), seeds=(1,)
    )
    assert math.isinf(found.mean)


def test_a_start_with_held_bonds_has_the_temperature_of_what_is_left():
    atoms = hydroxides(400)
    state, constraints = nve_start(
        atoms, temperature_K=300.0, hydrogen_mass_Da=4.0, seed=3, held=held(atoms, 0.98)
    )
    bonds = state.positions[1::2] - state.positions[::2]
    assert bonds.norm(dim=-1).numpy() == pytest.approx(0.98, rel=1e-9)
    apart = state.velocities[1::2] - state.velocities[::2]
    assert (bonds * apart).sum(-1).abs().max() < 1e-9
    twice = float((state.masses[:, None] * state.velocities.square()).sum())
    left = 3 * 800 - float(constraints.lost_degrees(state.positions, state.masses).sum())
    assert left == pytest.approx(5 * 400)
    assert twice / left / BOLTZMANN_EV_K == pytest.approx(300.0, rel=0.06)


def test_predicted_heating():
    # DESIGN §6: 3.9 K for a meV/atom/ps at γ = 1/ps
    assert predicted_heating_K(1.0, 1.0) == pytest.approx(3.868, abs=0.001)
    assert predicted_heating_K(3.0, 10.0) == pytest.approx(1.160, abs=0.001)


@pytest.mark.parametrize(("symbols", "degrees"), [("OH", 1.5), ("OHOHOH", 2.5), ("N", 0.0)])
def test_the_centre_of_mass_takes_no_heat(symbols, degrees):
    atoms = Atoms(symbols, [[2.0 * k, 0, 0] for k in range(len(Atoms(symbols)))])

    def nothing(positions, cell):
        return Evaluation(positions.sum() * 0, positions * 0, torch.zeros(3, 3))

    drift = nve_respa_drift(
        [atoms], nothing, nothing, outer_fs=2.0, picoseconds=0.1, hydrogen_mass_Da=0.0, seeds=(1,)
    )
    assert drift.degrees_per_atom == pytest.approx(degrees) and abs(drift.mean) < 1e-9
    found = replace(drift, values=(1.0,)).heating_K(1.0)
    assert found == (pytest.approx(3.868 * 3 / degrees, rel=1e-3) if degrees else None)
    assert replace(drift, values=(math.inf,)).heating_K(1.0) is None


def test_held_atoms_take_no_heat_and_are_not_counted():
    held = hydroxides()
    held.set_constraint(FixAtoms(range(0, 24, 2)))
    state, _ = nve_start(held, temperature_K=300.0, hydrogen_mass_Da=4.0, seed=2)
    assert not state.velocities[::2].any() and state.velocities[1::2].all()
    found = nve_respa_drift(
        [held], springs(OH_EV_A2), springs(0.9 * OH_EV_A2), outer_fs=4.0, seeds=(1,)
    )
    assert found.degrees_per_atom == 3.0 and abs(found.mean) < 1.0
    # of the twelve that move
    levels = TwoLevel(springs(OH_EV_A2), springs(OH_EV_A2))
    start = levels.evaluate(state, "slow")
    assert 12 * _energy_per_atom(start) == pytest.approx(float(conserved_energy(start)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"outer_fs": 6.0, "inner_fs": 4.0}, "outer_fs=6 is no multiple of inner_fs=4"),
        ({"outer_fs": 0.5}, "outer_fs=0.5 is no multiple"),
        ({"outer_fs": -6.0}, "outer_fs=-6: give a finite number above 0"),
        ({"outer_fs": 6.0, "picoseconds": 0.03}, "picoseconds=0.03 are 5 outer steps"),
        ({"outer_fs": 6.0, "seeds": ()}, "at least one frame and one seed"),
    ],
)
def test_what_cannot_be_measured_is_said(words, message):
    with pytest.raises(UserError, match=message):
        nve_respa_drift([hydroxides()], springs(1.0), springs(1.0), **words)


def test_the_frames_are_of_one_system():
    with pytest.raises(UserError, match="differ in their atoms"):
        nve_respa_drift([hydroxides(1), hydroxides(2)], springs(1.0), springs(1.0), outer_fs=4.0)
    teacher = springs(1.0)
    with pytest.raises(UserError, match="no multiple"):
        nve_respa_drift([hydroxides()], teacher, teacher, outer_fs=4.5)
    assert teacher.calls == 0
