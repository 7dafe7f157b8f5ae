"""Order of convergence, reversibility and energy conservation of the torch engine."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from algorithm1 import algorithm1
from analytic import Analytic, Tape, chain_state, stiff_and_soft, stiff_springs

from integrators.bath import Bath
from integrators.engine import conserved_energy, run, step
from integrators.levels import SingleLevel, TwoLevel
from integrators.propagators import kinetic_energy
from integrators.splitting import baoab, obabo, respa_baoab
from integrators.state import initial_state

TWO_LEVEL = TwoLevel(Analytic(stiff_and_soft), Analytic(stiff_springs), clip=None)
TEACHER = SingleLevel(Analytic(stiff_and_soft))
CASES = [
    pytest.param(respa_baoab(1), TWO_LEVEL, id="respa(1)"),
    pytest.param(respa_baoab(3), TWO_LEVEL, id="respa(3)"),
    pytest.param(respa_baoab(4), TWO_LEVEL, id="respa(4)"),
    pytest.param(baoab(), TEACHER, id="baoab"),
    pytest.param(obabo(), TEACHER, id="obabo"),
]


@pytest.mark.parametrize(("splitting", "levels"), CASES)
def test_order_of_convergence_is_two(splitting, levels):
    start, nve = initial_state(*chain_state(seed=3)), splitting.without_ou()

    def end(steps):
        return run(start, levels, nve, steps=steps, timestep=2.0 / steps).positions

    exact = run(start, TEACHER, baoab().without_ou(), steps=4000, timestep=2.0 / 4000).positions
    counts = [40, 80, 160]
    errors = [(end(steps) - exact).norm().item() for steps in counts]
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("splitting", "levels"), CASES)
def test_reversed_velocities_lead_back(splitting, levels):
    start, nve = initial_state(*chain_state()), splitting.without_ou()
    there = run(start, levels, nve, steps=100, timestep=0.1)
    back = run(replace(there, velocities=-there.velocities), levels, nve, steps=100, timestep=0.1)
    torch.testing.assert_close(back.positions, start.positions, rtol=0, atol=1e-8)
    torch.testing.assert_close(back.velocities, -start.velocities, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("splitting", "levels"), CASES[1:4])
def test_nve_energy_does_not_drift(splitting, levels):
    start = initial_state(*chain_state((8,)))
    energies = []
    run(
        start,
        levels,
        splitting.without_ou(),
        steps=2000,
        timestep=0.1,
        on_step=lambda s: energies.append(conserved_energy(s)),
    )
    energy = torch.stack(energies)
    # the ripple of single steps averages out over half of the run, a drift would not
    drift = energy[1000:].mean(dim=0) - energy[:1000].mean(dim=0)
    assert drift.mean().abs() < 0.1 * energy.std(dim=0).mean()
    assert (drift.abs() < 1e-3 * energy.mean(dim=0)).all()


@pytest.mark.parametrize(("splitting", "levels"), CASES)
def test_heat_is_what_the_thermostat_put_in(splitting, levels):
    cold = initial_state(*chain_state((200,)))
    cold = replace(cold, velocities=torch.zeros_like(cold.velocities))
    bath, seen = Bath(kT=2.0, friction=1.0), []
    end = run(
        cold,
        levels,
        splitting,
        steps=150,
        timestep=0.04,
        bath=bath,
        seed=4,
        on_step=lambda s: seen.append(conserved_energy(s).mean()),
    )
    assert end.heat.mean().abs() > 5.0
    assert torch.stack(seen).std() < 2e-3 * end.heat.mean().abs()
    kinetic = kinetic_energy(end.velocities, end.masses)
    expected = 0.5 * 12 * bath.kT
    assert abs(kinetic.mean() - expected) < 4 * kinetic.std() / 200**0.5


def test_friction_lets_the_conserved_energy_climb_without_heating():
    """By γ Δt² <F_slow²> / (12 m) per degree of freedom and time, of harmonic oscillators."""
    springs = (Analytic(lambda x, k=k: 0.5 * k * x.square().sum((-2, -1))) for k in (1.4, 1.0))
    levels, replicas, kT, friction, timestep = TwoLevel(*springs, clip=None), 4000, 1.0, 0.2, 0.5
    generator = torch.Generator().manual_seed(2)
    x, v = torch.randn(2, replicas, 1, 3, generator=generator, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    start, energies = initial_state(x * (kT / 1.4) ** 0.5, v * kT**0.5, one), []
    end = run(
        *(start, levels, respa_baoab(3)),
        steps=400,
        timestep=timestep,
        bath=Bath(kT=kT, friction=friction),
        seed=3,
        on_step=lambda s: energies.append(conserved_energy(s)),
    )
    climb = (energies[-1] - energies[99]) / (300 * timestep) / 3
    slow_square = 0.4**2 * kT / 1.4
    expected = friction * timestep**2 * slow_square / 12
    error = climb.std().item() / replicas**0.5
    assert error < 0.05 * expected
    # the next order of the step adds a few per cent
    assert climb.mean().item() == pytest.approx(expected, abs=0.05 * expected + 3 * error)
    square = end.positions.square().mean().item()
    assert square == pytest.approx(kT / 1.4, rel=4 * (2 / (3 * replicas)) ** 0.5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_engine_is_algorithm_1(n):
    positions, velocities, masses = chain_state()
    noise = np.random.default_rng(2).standard_normal((30 * n, 4, 3))
    cell = torch.zeros(3, 3)

    def forces(potential):
        return lambda x: potential(torch.from_numpy(x), cell).forces.numpy()

    x, v = algorithm1(
        positions.numpy(),
        velocities.numpy(),
        masses.numpy(),
        forces(TWO_LEVEL.teacher),
        forces(TWO_LEVEL.student),
        dt=0.2,
        n=n,
        gamma=0.5,
        kT=0.8,
        steps=30,
        noise=iter(noise),
    )
    state, tape = initial_state(positions, velocities, masses), Tape(torch.from_numpy(noise))
    for _ in range(30):
        state = step(
            state,
            TWO_LEVEL,
            respa_baoab(n),
            timestep=0.2,
            bath=Bath(kT=0.8, friction=0.5),
            noise=tape,
        )
    np.testing.assert_allclose(state.positions.numpy(), x, rtol=0, atol=1e-10)
    np.testing.assert_allclose(state.velocities.numpy(), v, rtol=0, atol=1e-10)
