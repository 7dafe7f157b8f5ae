"""Coloured noise beside distances that are held: exact averages, heat, and the compiled loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_coloured_noise import GENERAL, HIGH_PASS
from test_constraints import (
    BENT,
    FREE,
    KT,
    MASSES,
    REPLICAS,
    STUDENT,
    TRIANGLE,
    TWO_LEVEL,
    bent,
    exact_cosine,
    held,
    outer_steps,
)
from test_inner_loop import close, on_arrays

from integrators import engine
from integrators.bath import Bath
from integrators.compiled_loop import Loop, Program
from integrators.constraints import Constraints, Distances
from integrators.engine import conserved_energy, run, step
from integrators.levels import SingleLevel, TwoLevel
from integrators.noise import CounterNoise
from integrators.splitting import FAST, OU, fast_part, respa_baoab
from integrators.state import initial_state

ANGLE_MASSES = torch.tensor([2.0, 1.0, 1.5], dtype=torch.float64)


@pytest.mark.parametrize(
    ("noise", "filled"),
    [(HIGH_PASS, True), (GENERAL, True), (HIGH_PASS, False)],
    ids=["high-pass", "general", "not filled up"],
)
def test_a_molecule_with_held_bonds_keeps_its_temperature_and_its_angle(noise, filled, monkeypatch):
    """P(θ) ~ sin θ √det(G M⁻¹ Gᵀ) exp(-U/kT), and kT for each of the seven degrees that are left.

    The extra velocities have kT in all nine directions. Where velocities are not filled up across
    the manifold they are too cold, which a molecule that turns passes on to its own.
    """
    if not filled:
        monkeypatch.setattr(engine, "fill_across", lambda state, *_: state)
    start = torch.tensor([[0, 0, 0], [1, 0, 0], [0.0, 1, 0]], dtype=torch.float64)
    distances = Distances(np.array([[0, 1], [0, 2]]), np.array([1.0, 1.0]))
    constraints = Constraints.of(distances, ANGLE_MASSES.numpy(), start.numpy(), FREE.numpy())
    x = start.expand(REPLICAS, 3, 3).clone()
    cosines, kinetic, extra = [], [], []

    def look(k, op, now):
        if isinstance(op, OU) and now.step >= 100 and now.step % 20 == 0 and k < 6:
            kinetic.append((ANGLE_MASSES * now.velocities.square().sum(-1)).sum(-1) / 7)
            extra.append((ANGLE_MASSES * now.extra.square().mean(-1).mean(0)).mean(-1))

    def on_step(now):
        if now.step > 100 and now.step % 20 == 0:
            first, second = (now.positions[:, k] - now.positions[:, 0] for k in (1, 2))
            cosines.append((first * second).sum(-1))

    run(
        initial_state(x, torch.zeros_like(x), ANGLE_MASSES),
        TwoLevel(bent(0.5), bent(0.35), clip=None),
        respa_baoab(2),
        steps=240,
        timestep=0.25,
        bath=Bath(kT=KT, friction=0.0, coloured=noise),
        seed=2,
        constraints=constraints,
        on_op=look,
        on_step=on_step,
    )
    (of_extra, error), (temperature, its_error), (cosine, of_cosine) = map(
        _mean, (extra, kinetic, cosines)
    )
    assert (abs(of_extra - KT) < 4 * error) == filled
    if filled:
        assert abs(temperature - KT) < 4 * its_error
        assert abs(cosine - exact_cosine(ANGLE_MASSES)) < 4 * of_cosine


def _mean(seen):
    """Mean over replicas of their averages over time, and its standard error."""
    of_replicas = torch.stack(seen).mean(0)
    return of_replicas.mean().item(), of_replicas.std().item() / REPLICAS**0.5


def test_heat_is_what_the_thermostat_put_in():
    constraints, start = held(replicas=(200,), kT=1e-6)
    seen = []
    end = run(
        *(start, TWO_LEVEL, respa_baoab(3)),
        steps=150,
        timestep=0.04,
        bath=Bath(kT=2.0, friction=0.0, coloured=HIGH_PASS),
        seed=4,
        constraints=constraints,
        on_step=lambda s: seen.append(conserved_energy(s).mean()),
    )
    assert end.heat.mean().abs() > 5.0
    assert torch.stack(seen).std() < 2e-3 * end.heat.mean().abs()


@pytest.mark.parametrize("distances", [BENT, TRIANGLE])
@pytest.mark.parametrize("fixcom", [False, True])
def test_the_compiled_loop_takes_the_same_steps(distances, fixcom):
    n, timestep, natoms = 5, 0.4, 6
    constraints, state = held(distances)
    generator = torch.Generator().manual_seed(3)
    draws = GENERAL.draws(held=True)
    noise = torch.randn(n, draws, natoms, 3, generator=generator, dtype=torch.float64)
    extra = torch.randn(2, natoms, 3, generator=generator, dtype=torch.float64) * 0.3**0.5
    rows, seen = iter(noise), []
    expected = step(
        replace(state, extra=extra / MASSES.sqrt()[:, None]),
        SingleLevel(STUDENT),
        fast_part(n),
        timestep=timestep,
        bath=Bath(kT=0.3, friction=0.0, coloured=GENERAL),
        noise=lambda *_: next(rows),
        fixcom=fixcom,
        constraints=constraints,
        on_op=lambda k, op, now: seen.append(now) if isinstance(op, OU) else None,
    )
    momenta = MASSES[:, None] * state.velocities
    found = Loop(
        *(t.numpy() for t in (state.positions[None], momenta[None], MASSES, FREE)),
        {FAST: on_arrays(STUDENT)},
        kT=0.3,
        groups=np.ones((1, natoms), bool),
        fixcom=fixcom,
        coloured=GENERAL,
        extra=extra[:, None].numpy(),
        constraints=constraints,
    ).take(Program.of(fast_part(n)), timestep=timestep, noise=noise[:, :, None].numpy())
    root = MASSES.sqrt()[:, None]
    close(found.positions[0], expected.positions, 1e-10)
    close(found.momenta[0], MASSES[:, None] * expected.velocities, 1e-10)
    close(found.extra[:, 0], root * expected.extra, 1e-10)
    assert found.heat == pytest.approx(float(expected.heat), rel=1e-9, abs=1e-12)
    assert len(found.twice_kinetic) == len(seen) == n


def test_outer_steps_draw_what_they_need():
    constraints, state = held()
    bath = Bath(kT=0.3, friction=0.0, coloured=GENERAL)
    noise = CounterNoise(8)
    end = run(
        *(state, TWO_LEVEL, respa_baoab(3)),
        steps=1,
        timestep=0.2,
        bath=bath,
        seed=8,
        constraints=constraints,
    )
    outer = outer_steps(MASSES, friction=np.zeros(6), coloured=GENERAL)
    first = noise(0, len(respa_baoab(3)), torch.empty(2, 6, 3, dtype=torch.float64))
    found = outer.take(
        state.positions.numpy(),
        (MASSES[:, None] * state.velocities).numpy(),
        FREE.numpy(),
        outer.draw(noise, 0),
        0.3**0.5 * first.numpy(),
    )
    close(found.positions, end.positions, 1e-10)
    close(found.momenta, MASSES[:, None] * end.velocities, 1e-10)
