"""The loop of a driver against the engine, which keeps every state."""

import pytest
import torch
from analytic import Analytic, chain_state, stiff_springs

from integrators.bath import Bath
from integrators.engine import step
from integrators.inner_loop import take_inner_steps
from integrators.levels import SingleLevel
from integrators.splitting import FAST, OU, fast_part
from integrators.state import initial_state


@pytest.mark.parametrize("fixcom", [False, True])
@pytest.mark.parametrize("thermostat", [False, True])
def test_it_takes_the_steps_of_the_engine(fixcom, thermostat):
    n, timestep, state = 5, 0.4, initial_state(*chain_state(n_atoms=6))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(n, 6, 3, generator=generator, dtype=torch.float64)
    friction = torch.tensor([0.1, 2.0, 0.1, 2.0, 0.0, 0.5], dtype=torch.float64)
    splitting, bath = fast_part(n), Bath(kT=0.3, friction=friction)
    if not thermostat:
        splitting, bath, noise = splitting.without_ou(), None, noise[:0]
    groups = torch.tensor([[1.0, 0, 1, 0, 1, 0], [1.0] * 6], dtype=torch.float64)
    seen, draws = [], iter(noise)

    def look(k, op, now):
        if isinstance(op, OU):
            seen.append(groups @ (now.masses[:, None] * now.velocities**2).sum(-1))

    expected = step(
        state,
        SingleLevel(Analytic(stiff_springs)),
        splitting,
        timestep=timestep,
        bath=bath,
        noise=lambda *_: next(draws),
        on_op=look,
        fixcom=fixcom,
    )
    potential, momenta = Analytic(stiff_springs), state.masses[:, None] * state.velocities
    start = state.positions.clone(), momenta.clone()
    found = take_inner_steps(
        state.positions,
        momenta,
        state.masses,
        state.cell,
        potential,
        splitting,
        timestep=timestep,
        bath=bath,
        noise=noise,
        groups=groups,
        fixcom=fixcom,
    )
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(found.positions, expected.positions, **close)
    velocities = found.momenta / state.masses[:, None]
    torch.testing.assert_close(velocities, expected.velocities, **close)
    forces = expected.evaluations[FAST].forces
    torch.testing.assert_close(found.evaluation.forces, forces, **close)
    torch.testing.assert_close(found.heat, expected.heat, **close)
    assert found.twice_kinetic.shape == (n if thermostat else 0, 2)
    for a, b in zip(found.twice_kinetic, seen, strict=True):
        torch.testing.assert_close(a, b, **close)
    assert potential.calls == n + 1
    assert torch.equal(state.positions, start[0]) and torch.equal(momenta, start[1])
    drift = found.momenta.sum(0).abs().max()
    assert (drift < 1e-12) == fixcom
