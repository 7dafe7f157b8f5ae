"""Vibrational density of states against that of a damped harmonic oscillator."""

import numpy as np
import pytest
import torch
from analytic import Analytic
from ase import Atoms

from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import SingleLevel
from integrators.splitting import baoab
from integrators.state import initial_state
from mts_driver.units import EV_FS2_A2_PER_AMU
from mts_driver.validation.resonance.spectrum import Velocities

C_CM_PER_FS = 2.99792458e-5


@pytest.mark.parametrize("friction_per_ps", [50.0, pytest.param(150.0, marks=pytest.mark.slow)])
def test_peak_and_width_of_a_damped_oscillator(friction_per_ps):
    """Langevin's oscillator has its velocities' maximum at its frequency, and the width γ/2πc."""
    mass, wavenumber = 4.0 * EV_FS2_A2_PER_AMU, 2600.0
    k = mass * (2 * np.pi * C_CM_PER_FS * wavenumber) ** 2
    atoms = Atoms("H1200", np.zeros((1200, 3)))
    seen = Velocities(atoms, 0.5)
    bath = Bath.from_temperature(temperature_K=300.0, friction_per_ps=friction_per_ps)
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(1200, 3, generator=generator, dtype=torch.float64) * (bath.kT / mass) ** 0.5
    run(
        initial_state(torch.zeros(1200, 3, dtype=torch.float64), v, torch.full((1200,), mass)),
        SingleLevel(Analytic(lambda x: 0.5 * k * x.square().sum((-2, -1)))),
        baoab(),
        steps=4000,
        timestep=0.5,
        bath=bath,
        seed=2,
        on_op=lambda _, op, state: seen.on_op(op, state),
    )
    found = seen.spectrum(0.2)
    assert found.density.mean() == pytest.approx(1.0)
    assert found.stretch_peak_cm1 == pytest.approx(wavenumber, abs=40)
    width = 1e-3 * friction_per_ps / (2 * np.pi * C_CM_PER_FS)
    assert found.stretch_width_cm1 == pytest.approx(width, rel=0.15)
    # of a friction that rises with frequency, as that of high-pass noise
    high = seen.mean_over_motion(0.2, lambda x: x**2 / (x**2 + 1500.0**2))
    assert high == pytest.approx(wavenumber**2 / (wavenumber**2 + 1500.0**2), rel=0.03)


def test_too_short_a_run_and_no_hydrogens_have_no_spectrum():
    assert Velocities(Atoms("H"), 1.0).spectrum(0.2) is None
    assert Velocities(Atoms("O"), 1.0).spectrum(0.2) is None
    assert Velocities(Atoms("O"), 1.0).mean_over_motion(0.2, lambda x: x) is None
