"""Coloured noise: its exact step, its friction at every frequency, canonical averages, the loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from analytic import Analytic, chain_state, stiff_and_soft, stiff_springs
from test_canonical_sampling import KT, MASSES, REPLICAS, TWO_LEVEL, exact_moments
from test_inner_loop import GROUPS, close, on_arrays

from integrators.bath import Bath
from integrators.compiled_loop import Loop, Program
from integrators.engine import conserved_energy, run, step
from integrators.gle import ColouredNoise, high_pass
from integrators.levels import SingleLevel, TwoLevel
from integrators.memory import slowdown
from integrators.noise import CounterNoise
from integrators.outer_steps import OuterSteps
from integrators.propagators import generalised_langevin, ornstein_uhlenbeck
from integrators.reversible import gradient
from integrators.splitting import FAST, OU, baoab, fast_part, respa_baoab
from integrators.state import initial_state

# friction of 0.3 on slow motion, 2.3 on fast, in the units of the wells
HIGH_PASS = ColouredNoise(((2.3, 1.5), (1.5, 1.125)))
# three momenta, neither symmetric nor antisymmetric
GENERAL = ColouredNoise(((0.9, 0.6, 0.1), (-0.6, 1.2, 0.4), (-0.1, -0.4, 2.0)))


@pytest.mark.parametrize("noise", [HIGH_PASS, GENERAL], ids=["high-pass", "general"])
def test_its_steps_are_those_of_a_stationary_process(noise):
    decay, spread = noise.propagator(0.7)
    twice = noise.propagator(1.4)
    np.testing.assert_allclose(decay @ decay, twice[0], atol=1e-12)
    one = np.eye(len(decay))
    np.testing.assert_allclose(decay @ decay.T + spread @ spread.T, one, atol=1e-12)
    np.testing.assert_allclose(spread, spread.T, atol=1e-14)
    # to first order the matrix itself
    small, _ = noise.propagator(1e-6)
    np.testing.assert_allclose((one - small) / 1e-6, np.array(noise.drift_matrix), atol=1e-5)


def test_the_friction_of_high_pass_noise_is_low_for_slow_motion():
    noise = high_pass(friction_per_ps=1.0, high_friction_per_ps=50.0, cutoff_per_cm=1500.0)
    per_cm = np.array([0.0, 50.0, 500.0, 1500.0, 3600.0])
    omega = 2 * np.pi * 2.99792458e-5 * per_cm
    expected = 1.0 + 50.0 * per_cm**4 / (per_cm**4 + 1500.0**4)
    np.testing.assert_allclose(1e3 * noise.friction(omega), expected, rtol=1e-9)


def test_without_extra_momenta_it_is_white_noise():
    state = initial_state(*chain_state())
    bath = Bath(kT=0.8, friction=0.7)
    coloured = Bath(kT=0.8, friction=0.0, coloured=ColouredNoise(((0.7,),)))
    xi = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    white = ornstein_uhlenbeck(state, 0.4, bath, xi)
    same = generalised_langevin(
        replace(state, extra=xi[:0].reshape(0, 4, 3)), 0.4, coloured, xi[None]
    )
    torch.testing.assert_close(same.velocities, white.velocities, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same.heat, white.heat, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise", [HIGH_PASS, GENERAL], ids=["high-pass", "general"])
def test_averages_are_canonical_and_slow_motion_has_the_friction_of_zero(noise):
    """As in test_canonical_sampling, with the exact correlation of a free particle's velocity."""
    timestep = 0.3
    start = torch.zeros(REPLICAS, 3, 3, dtype=torch.float64)
    state = initial_state(start + 0.5, start, MASSES)
    bath = Bath(kT=KT, friction=0.0, coloured=noise)
    how = {"timestep": timestep, "bath": bath, "noise": CounterNoise(11)}
    for _ in range(120):
        state = step(state, TWO_LEVEL, respa_baoab(3), **how)
    early = state
    for _ in range(4):
        state = step(state, TWO_LEVEL, respa_baoab(3), **how)
    second, fourth = exact_moments()
    thermal = KT / float(MASSES[2])
    memory = noise.propagator(4 * timestep)[0][0, 0]
    x, v = state.positions, state.velocities
    samples = {
        "harmonic <x²>": (x[:, 0] ** 2, KT),
        "double well <x²>": (x[:, 1] ** 2, second),
        "double well <x⁴>": (x[:, 1] ** 4, fourth),
        "free <v²>": (v[:, 2] ** 2, thermal),
        "free <v(0) v(t)>": (v[:, 2] * early.velocities[:, 2], thermal * memory),
    }
    for name, (value, exact) in samples.items():
        error = value.std().item() / value.numel() ** 0.5
        # splitting errors at this step are below three of these
        assert abs(value.mean().item() - exact) < 5 * error, name
    drifted = (x[:, 2] - early.positions[:, 2]).square().mean()
    assert drifted > 0


def test_a_free_particle_diffuses_with_the_friction_of_slow_motion():
    free = SingleLevel(Analytic(lambda x: 0.0 * x.sum((-2, -1))))
    zeros = torch.zeros(4000, 1, 3, dtype=torch.float64)
    state = initial_state(zeros, zeros, torch.ones(1, dtype=torch.float64))
    bath = Bath(kT=1.0, friction=0.0, coloured=HIGH_PASS)
    early = run(state, free, baoab(), steps=60, timestep=0.5, bath=bath, seed=3)
    late = run(early, free, baoab(), steps=400, timestep=0.5, bath=bath, seed=3)
    moved = (late.positions - early.positions).square()
    found, error = moved.mean().item(), moved.std().item() / moved.numel() ** 0.5
    # <x²> = 2 kT/γ(0) (t - t₀), t₀ from the integral of the exact correlation
    time, a = 200.0, np.array(HIGH_PASS.drift_matrix)
    inverse = np.linalg.inv(a)
    exact = 2 * (inverse * time - inverse @ inverse @ (np.eye(2) - HIGH_PASS.propagator(time)[0]))
    assert HIGH_PASS.friction(np.zeros(1))[0] == pytest.approx(0.3)
    assert abs(found - exact[0, 0]) < 4 * error
    assert abs(found - 2 * time / 2.3) > 20 * error  # that of fast motion


def test_heat_is_what_it_put_in():
    levels = TwoLevel(Analytic(stiff_and_soft), Analytic(stiff_springs), clip=None)
    state, seen = initial_state(*chain_state((200,))), []
    bath = Bath(kT=2.0, friction=0.0, coloured=HIGH_PASS)
    end = run(
        *(state, levels, respa_baoab(3)),
        steps=150,
        timestep=0.04,
        bath=bath,
        seed=4,
        on_step=lambda s: seen.append(conserved_energy(s).mean()),
    )
    assert end.heat.mean().abs() > 5.0
    assert torch.stack(seen).std() < 3e-3 * end.heat.mean().abs()


@pytest.mark.parametrize("fixcom", [False, True])
def test_the_compiled_loop_takes_the_same_steps(fixcom):
    n, timestep, state = 5, 0.4, initial_state(*chain_state(n_atoms=6))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(n, 3, 6, 3, generator=generator, dtype=torch.float64)
    extra = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    root = state.masses[:, None].sqrt()
    draws, seen = iter(noise), []
    expected = step(
        replace(state, extra=extra / root),
        SingleLevel(Analytic(stiff_springs)),
        fast_part(n),
        timestep=timestep,
        bath=Bath(kT=0.3, friction=0.0, coloured=GENERAL),
        noise=lambda *_: next(draws),
        fixcom=fixcom,
        on_op=lambda k, op, now: (
            seen.append(GROUPS @ (now.masses[:, None] * now.velocities**2).sum(-1))
            if isinstance(op, OU)
            else None
        ),
    )
    momenta = state.masses[:, None] * state.velocities
    found = Loop(
        *(t.numpy() for t in (state.positions[None], momenta[None], state.masses, state.cell)),
        {FAST: on_arrays(Analytic(stiff_springs))},
        kT=0.3,
        groups=GROUPS.bool().numpy(),
        fixcom=fixcom,
        coloured=GENERAL,
        extra=extra[:, None].numpy(),
    ).take(Program.of(fast_part(n)), timestep=timestep, noise=noise[:, :, None].numpy())
    close(found.positions[0], expected.positions)
    close(found.momenta[0], state.masses[:, None] * expected.velocities)
    close(found.extra[:, 0], root * expected.extra)
    assert found.heat == pytest.approx(float(expected.heat), rel=1e-11)
    close(found.twice_kinetic, torch.stack(seen))


def test_outer_steps_continue_with_their_extra_momenta():
    """Two outer steps of the engine, which draws the first extra momenta as they do."""
    state = initial_state(*chain_state(n_atoms=6))
    teacher, student = Analytic(stiff_and_soft), Analytic(stiff_springs)
    bath = Bath(kT=0.3, friction=0.0, coloured=HIGH_PASS)
    end = run(
        *(state, TwoLevel(teacher, student, clip=None), respa_baoab(3)),
        steps=2,
        timestep=0.3,
        bath=bath,
        seed=8,
    )
    outer = OuterSteps(
        *(on_arrays(teacher), on_arrays(student)),
        masses=state.masses.numpy(),
        n=3,
        timestep=0.3,
        kT=0.3,
        friction=np.zeros(6),
        groups=GROUPS.bool().numpy(),
        clip=None,
        fixcom=False,
        coloured=HIGH_PASS,
    )
    q, p = state.positions.numpy(), (state.masses[:, None] * state.velocities).numpy()
    noise = CounterNoise(8)
    like = torch.empty(1, 6, 3, dtype=torch.float64)
    extra = 0.3**0.5 * noise(0, len(respa_baoab(3)), like).numpy()
    for k in range(2):
        found = outer.take(q, p, np.zeros((3, 3)), outer.draw(noise, k), extra)
        q, p, extra = found.positions, found.momenta, found.extra
    close(q, end.positions)
    close(p, state.masses[:, None] * end.velocities)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (((1.0, 2.0),), "square"),
        (((1.0, np.nan), (0.0, 1.0)), "finite"),
        (((1.0, 3.0), (3.0, 1.0)), "negative eigenvalue"),
        (((-1.0,),), "negative eigenvalue"),
    ],
)
def test_a_matrix_without_an_equilibrium_is_refused(matrix, said):
    with pytest.raises(ValueError, match=said):
        ColouredNoise(matrix)


def test_it_does_not_go_with_white_noise_nor_with_the_way_back():
    with pytest.raises(ValueError, match="friction=0"):
        Bath(kT=1.0, friction=1.0, coloured=HIGH_PASS)
    with pytest.raises(ValueError, match="above 0"):
        high_pass(friction_per_ps=1.0, high_friction_per_ps=-1.0, cutoff_per_cm=100.0)
    with pytest.raises(ValueError, match="coloured noise"):
        gradient(
            initial_state(*chain_state()),
            SingleLevel(Analytic(stiff_springs)),
            baoab(),
            lambda *_: None,
            (),
            steps=2,
            snapshots=(2,),
            timestep=0.1,
            bath=Bath(kT=1.0, friction=0.0, coloured=HIGH_PASS),
            seed=1,
        )


@pytest.mark.parametrize("high_per_ps", [50.0, 200.0])
def test_slow_motion_is_slower_by_a_known_factor(high_per_ps):
    """An oscillator far below the memory has the frequency and the damping of a heavier mass."""
    noise = high_pass(friction_per_ps=1.0, high_friction_per_ps=high_per_ps, cutoff_per_cm=1200.0)
    per_cm = 2 * np.pi * 2.99792458e-5
    heavier = noise.slowdown**2
    assert heavier - 1.0 == pytest.approx(1e-3 * high_per_ps / (2**0.5 * 1200.0 * per_cm), rel=1e-9)
    omega, dt = 30.0 * per_cm, 0.1
    kick, drift, thermostat = (np.eye(4) for _ in range(3))
    kick[1, 0], drift[0, 1] = -(omega**2) * dt / 2, dt / 2
    thermostat[1:, 1:] = noise.propagator(dt)[0]
    values = np.linalg.eigvals(kick @ drift @ thermostat @ drift @ kick)
    found = values[np.abs(values - np.exp(1j * omega * dt)).argmin()]
    damping = -2.0 * np.log(abs(found)) / dt
    frequency = np.hypot(np.angle(found) / dt, damping / 2)
    assert frequency == pytest.approx(omega / noise.slowdown, rel=2e-3)
    assert damping == pytest.approx(1e-3 / heavier, rel=5e-3)


def test_white_noise_has_no_inertia_and_a_memory_must_end():
    assert ColouredNoise(((0.7,),)).slowdown == 1.0
    with pytest.raises(ValueError, match="does not end"):
        slowdown(np.array([[0.0, 1.0], [-1.0, 0.0]]))
