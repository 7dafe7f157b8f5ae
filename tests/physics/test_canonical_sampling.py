"""Canonical averages on potentials where they are known, and proof that the test can fail.

Three kinds of atoms, three independent directions each, many replicas: one in a harmonic well, one
in a double well, one free. The last snapshot of each replica is an independent sample, so standard
errors need no autocorrelation time.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from integrators import engine
from integrators.bath import Bath
from integrators.engine import step
from integrators.levels import SingleLevel, TwoLevel
from integrators.noise import CounterNoise
from integrators.splitting import OU, Drift, Kick, baoab, obabo, respa_baoab
from integrators.state import Evaluation, initial_state

REPLICAS, KT, FRICTION = 6000, 0.9, 1.0
MASSES = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
STIFFNESS = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)[:, None]
WELL = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)[:, None]
EQUILIBRATION, LAG = 21.0, 1.0
"""Times before the first and between the two snapshots that are correlated, in 1/FRICTION."""


def wells(stiffness, height):
    """Return k/2 x² on the first atom and height (x² - 1)² on the second."""

    def potential(x, cell):
        energy = 0.5 * stiffness * STIFFNESS * x**2 + height * WELL * (x**2 - 1) ** 2
        forces = -stiffness * STIFFNESS * x - 4 * height * WELL * x * (x**2 - 1)
        return Evaluation(energy.sum((-2, -1)), forces, torch.zeros(3, 3))

    return potential


TEACHER, STUDENT = wells(1.0, 1.0), wells(0.8, 0.9)
TWO_LEVEL, ONE_LEVEL = TwoLevel(TEACHER, STUDENT, clip=None), SingleLevel(TEACHER)


def exact_moments():
    """Return <x²> and <x⁴> in the double well by quadrature."""
    x = np.linspace(-4, 4, 4001)
    p = np.exp(-((x**2 - 1) ** 2) / KT)
    return [(p * x**k).sum() / p.sum() for k in (2, 4)]


def deviations(splitting, levels, *, timestep=0.3):
    """Deviation of each average from its exact value, in standard errors."""
    zeros = torch.zeros(REPLICAS, 3, 3, dtype=torch.float64)
    state = initial_state(zeros + 0.5, zeros, MASSES)
    options = {
        "timestep": timestep,
        "bath": Bath(kT=KT, friction=FRICTION),
        "noise": CounterNoise(2024),
    }
    for _ in range(round(EQUILIBRATION / timestep)):
        state = step(state, levels, splitting, **options)
    early = state
    lag_steps = round(LAG / timestep)
    for _ in range(lag_steps):
        state = step(state, levels, splitting, **options)

    second, fourth = exact_moments()
    lag = FRICTION * lag_steps * timestep
    memory = float(np.exp(-lag))
    x, v, v_early = state.positions, state.velocities, early.velocities
    dx = x - early.positions
    thermal = KT / MASSES[2].item()
    samples = {
        "harmonic <x>": (x[:, 0], 0.0),
        "harmonic <x²>": (x[:, 0] ** 2, KT),
        "double well <x>": (x[:, 1], 0.0),
        "double well <x²>": (x[:, 1] ** 2, second),
        "double well <x⁴>": (x[:, 1] ** 4, fourth),
        "free <v²>": (v[:, 2] ** 2, thermal),
        "free <v(0) v(t)>": (v[:, 2] * v_early[:, 2], thermal * memory),
        "free <dx²>": (dx[:, 2] ** 2, 2 * thermal * (lag - 1 + memory) / FRICTION**2),
    }
    return {
        name: abs(value.mean().item() - exact) / (value.std().item() / value.numel() ** 0.5)
        for name, (value, exact) in samples.items()
    }


@pytest.mark.parametrize(
    ("splitting", "levels", "timestep"),
    [
        pytest.param(respa_baoab(1), TWO_LEVEL, 0.1, id="respa(1)"),
        pytest.param(respa_baoab(3), TWO_LEVEL, 0.3, id="respa(3)"),
        pytest.param(baoab(), ONE_LEVEL, 0.1, id="baoab"),
        pytest.param(obabo(), ONE_LEVEL, 0.1, id="obabo"),
    ],
)
def test_averages_are_canonical(splitting, levels, timestep):
    found = deviations(splitting, levels, timestep=timestep)
    # not max(): it can step over a NaN
    assert all(value < 4 for value in found.values()), found


def altered(n, change):
    """The operations of ``respa_baoab(n)`` with some weights changed; no Splitting allows it."""
    return tuple(replace(op, weight=op.weight * change(op)) for op in respa_baoab(n))


@pytest.mark.parametrize(
    ("operations", "symptom"),
    [
        pytest.param(
            altered(3, lambda op: 3 if isinstance(op, OU) else 1),
            "free <v(0) v(t)>",
            id="O of the outer step in each inner step",
        ),
        pytest.param(
            altered(3, lambda op: Fraction(1, 3) if isinstance(op, OU) else 1),
            "free <v(0) v(t)>",
            id="O of a third of the inner step",
        ),
        pytest.param(
            altered(3, lambda op: 2 if isinstance(op, Kick) and op.level == "fast" else 1),
            "harmonic <x²>",
            id="doubled fast kick",
        ),
        pytest.param(
            altered(3, lambda op: 2 if isinstance(op, Kick) and op.level == "slow" else 1),
            "harmonic <x²>",
            id="doubled slow kick",
        ),
        pytest.param(
            altered(3, lambda op: Fraction(1, 2) if isinstance(op, Drift) else 1),
            "free <dx²>",
            id="halved drift",
        ),
    ],
)
def test_wrong_weights_are_noticed(operations, symptom):
    assert deviations(operations, TWO_LEVEL)[symptom] > 4


def test_missing_square_root_of_the_mass_is_noticed(monkeypatch):
    correct = engine.ornstein_uhlenbeck

    def without_mass(state, dt, bath, noise):
        return correct(state, dt, bath, noise * state.masses[:, None].sqrt())

    monkeypatch.setattr(engine, "ornstein_uhlenbeck", without_mass)
    found = deviations(respa_baoab(3), TWO_LEVEL)
    assert found["free <v²>"] > 4
    assert found["harmonic <x²>"] > 4


def test_noise_too_long_for_its_friction_is_noticed(monkeypatch):
    correct = engine.ornstein_uhlenbeck

    def inconsistent(state, dt, bath, noise):
        return correct(state, dt, bath, noise * 1.1)

    monkeypatch.setattr(engine, "ornstein_uhlenbeck", inconsistent)
    assert deviations(respa_baoab(3), TWO_LEVEL)["free <v²>"] > 4


def test_temperature_is_right_behind_the_thermostat_and_too_low_at_the_end_of_a_step():
    oscillator = SingleLevel(wells(1.0, 0.0))
    zeros = torch.zeros(REPLICAS, 3, 3, dtype=torch.float64)
    masses = torch.ones(3, dtype=torch.float64)
    state, seen = initial_state(zeros, zeros, masses), {}

    def remember(k, op, state):
        seen[type(op)] = state.velocities[:, 0] ** 2

    for _ in range(40):
        state = step(
            state,
            oscillator,
            baoab(),
            timestep=0.8,
            bath=Bath(kT=KT, friction=FRICTION),
            noise=CounterNoise(5),
            on_op=remember,
        )
    error = KT * (2 / (3 * REPLICAS)) ** 0.5
    assert abs(seen[OU].mean() - KT) < 4 * error
    assert seen[Kick].mean() < KT - 4 * error
