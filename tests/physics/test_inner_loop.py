"""The loop of a driver against the engine, which keeps every state, and against exact modes."""

import numpy as np
import pytest
import torch
from analytic import Analytic, chain_state, stiff_springs

from integrators.bath import Bath
from integrators.compiled_loop import Loop, Program, Ring
from integrators.engine import step
from integrators.levels import SingleLevel, TwoLevel, difference
from integrators.splitting import FAST, OU, SLOW, baoab, fast_part, respa_baoab
from integrators.state import initial_state

FRICTION = torch.tensor([0.1, 2.0, 0.1, 2.0, 0.0, 0.5], dtype=torch.float64)
GROUPS = torch.tensor([[1.0, 0, 1, 0, 1, 0], [1.0] * 6], dtype=torch.float64)


def close(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def soft_springs(x):
    """A teacher for the student `stiff_springs`."""
    return stiff_springs(x) + 0.3 * (x**2).sum((-2, -1)) + 0.05 * (x**4).sum((-2, -1))


def on_arrays(potential):
    """Give and take arrays, of beads in cells of their own."""

    def evaluate(x, cells):
        found = potential(torch.from_numpy(x), torch.from_numpy(cells))
        return tuple(part.numpy() for part in found)

    return evaluate


@pytest.mark.parametrize("fixcom", [False, True])
@pytest.mark.parametrize("thermostat", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_it_takes_the_steps_of_the_engine(whole, fixcom, thermostat):
    n, timestep, state = 5, 0.4, initial_state(*chain_state(n_atoms=6))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(n, 6, 3, generator=generator, dtype=torch.float64)
    splitting = respa_baoab(n) if whole else fast_part(n)
    bath = Bath(kT=0.3, friction=FRICTION)
    if not thermostat:
        splitting, bath, noise = splitting.without_ou(), None, noise[:0]
    teacher, student = Analytic(soft_springs), Analytic(stiff_springs)
    clip, seen, draws = 0.8, [], iter(noise)

    def look(k, op, now):
        if isinstance(op, OU):
            seen.append(GROUPS @ (now.masses[:, None] * now.velocities**2).sum(-1))

    expected = step(
        state,
        TwoLevel(teacher, student, clip=clip) if whole else SingleLevel(student),
        splitting,
        timestep=timestep,
        bath=bath,
        noise=lambda *_: next(draws),
        on_op=look,
        fixcom=fixcom,
    )
    assert not whole or expected.clip_events > 0  # the bound is tested too
    fast, momenta = Analytic(stiff_springs), state.masses[:, None] * state.velocities
    start = state.positions.clone(), momenta.clone()

    def slow(x, cell):
        return difference(teacher(x, cell), student(x, cell), clip=clip)[0]

    loop = Loop(
        *(t.numpy() for t in (state.positions[None], momenta[None], state.masses, state.cell)),
        {FAST: on_arrays(fast), SLOW: on_arrays(slow)},
        kT=0.3,
        friction=FRICTION[None].numpy(),
        groups=GROUPS.bool().numpy(),
        fixcom=fixcom,
    )
    noise = noise[:, None].numpy()
    found = loop.take(Program.of(splitting), timestep=timestep, noise=noise)
    close(found.positions[0], expected.positions)
    close(found.momenta[0] / state.masses[:, None].numpy(), expected.velocities)
    for level in (FAST, SLOW)[: 1 + whole]:
        close(found.evaluations[level][1][0], expected.evaluations[level].forces)
    assert found.heat == pytest.approx(float(expected.heat), rel=1e-12, abs=1e-12)
    assert found.twice_kinetic.shape == (n if thermostat else 0, 2)
    for a, b in zip(found.twice_kinetic, seen, strict=True):
        close(a, b)
    assert fast.calls == n + 1
    assert torch.equal(state.positions, start[0]) and torch.equal(momenta, start[1])
    drift = abs(found.momenta.sum((0, 1))).max()
    assert (drift < 1e-12) == fixcom
    # what is known at the end is not evaluated again
    loop.take(Program.of(splitting), timestep=timestep, noise=noise)
    assert fast.calls == 2 * n + 1


def modes_of(beads):
    """Orthogonal normal modes of a ring, and their frequencies times βħ/P."""
    ring = 2 * np.eye(beads) - np.roll(np.eye(beads), 1, 0) - np.roll(np.eye(beads), -1, 0)
    squares, vectors = np.linalg.eigh(ring)
    squares[0] = 0.0  # the centroid's, which rounding makes a little off
    return torch.from_numpy(vectors.T.copy()), torch.from_numpy(np.sqrt(squares.clip(0.0)))


def test_free_ring_polymers_turn_as_harmonic_oscillators_do():
    beads, spring, dt = 5, 1.7, 0.9
    matrix, frequencies = modes_of(beads)
    q, p = torch.randn(2, beads, 6, 3, generator=torch.Generator().manual_seed(2)).double()
    masses = torch.linspace(1.0, 3.0, 6).double()
    free = Analytic(lambda x: 0.0 * x.sum((-2, -1)))
    found = Loop(
        *(t.numpy() for t in (q, p, masses, torch.zeros(3, 3).double())),
        {FAST: on_arrays(free)},
        groups=GROUPS.bool().numpy(),
        ring=Ring(matrix.numpy(), spring * frequencies.numpy()),
    ).take(Program.of(baoab().without_ou()), timestep=dt, noise=np.zeros((0, beads, 6, 3)))
    # the exact flow of dq/dt = p/m, dp/dt = -m ω² L q, L the Laplacian of the ring
    laplacian = matrix.mT @ torch.diag(frequencies**2) @ matrix
    for atom, m in enumerate(masses):
        generator = torch.zeros(2 * beads, 2 * beads).double()
        generator[:beads, beads:] = torch.eye(beads).double() / m
        generator[beads:, :beads] = -m * spring**2 * laplacian
        exact = torch.linalg.matrix_exp(dt * generator) @ torch.cat((q[:, atom], p[:, atom]))
        close(found.positions[:, atom], exact[:beads], 1e-9)
        close(found.momenta[:, atom], exact[beads:], 1e-9)
