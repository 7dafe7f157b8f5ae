"""Distances that are held: exact averages, order, reversibility, energy, and the compiled loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from analytic import Analytic, chain_state, stiff_springs
from test_inner_loop import close, on_arrays

from integrators.bath import Bath
from integrators.compiled_loop import Loop, Program
from integrators.constraints import Constraints, Distances
from integrators.engine import conserved_energy, run, step
from integrators.levels import SingleLevel, TwoLevel
from integrators.noise import CounterNoise
from integrators.outer_steps import OuterSteps
from integrators.propagators import kinetic_energy
from integrators.splitting import FAST, OU, baoab, fast_part, obabo, respa_baoab
from integrators.state import initial_state

MASSES = torch.tensor([12.0, 4.0, 4.0, 1.5, 2.5, 3.0], dtype=torch.float64)
# a bent molecule of two bonds, a rigid triangle would take the third; then a dumbbell
PAIRS, LENGTHS = np.array([[0, 1], [0, 2], [3, 4]]), np.array([1.0, 1.1, 0.7])
BENT = Distances(PAIRS, LENGTHS)
TRIANGLE = Distances(np.array([[0, 1], [0, 2], [1, 2], [3, 4]]), np.array([1.0, 1.1, 1.6, 0.7]))
START = torch.tensor(
    [[0, 0, 0], [1, 0, 0], [-0.3, 1, 0], [3, 0, 0], [3, 0.7, 0], [0, 3, 1]], dtype=torch.float64
)
FREE = torch.zeros(3, 3, dtype=torch.float64)


def springs(strength):
    """To the origin, and between all atoms."""

    def energy(x):
        apart = (x[..., :, None, :] - x[..., None, :, :]).square().sum(-1)
        return strength * (x.square().sum((-2, -1)) + 0.02 * apart.square().sum((-2, -1)))

    return energy


TEACHER, STUDENT = Analytic(springs(1.0)), Analytic(springs(0.8))
TWO_LEVEL, ONE_LEVEL = TwoLevel(TEACHER, STUDENT, clip=None), SingleLevel(TEACHER)


def held(distances=BENT, replicas=(), seed=1, kT=0.5):
    """Constraints and a state on their manifold, with tangent velocities."""
    constraints = Constraints.of(distances, MASSES.numpy(), START.numpy(), FREE.numpy())
    x = constraints.onto(START, MASSES).expand(*replicas, 6, 3).clone()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*replicas, 6, 3, generator=generator, dtype=torch.float64)
    v = constraints.tangent(x, noise * (kT / MASSES[:, None]).sqrt(), MASSES)
    return constraints, initial_state(x, v, MASSES)


def off(constraints, x):
    """Largest relative error of a squared length."""
    pairs = constraints.pairs
    bonds = x[..., pairs[..., 0], :] - x[..., pairs[..., 1], :]
    there = constraints.squares > 0
    return np.abs(bonds.square().sum(-1).numpy() / np.where(there, constraints.squares, 1) - 1)[
        ..., there
    ].max()


@pytest.mark.parametrize("distances", [BENT, TRIANGLE])
def test_lengths_stay_and_reversed_velocities_lead_back(distances):
    constraints, start = held(distances)
    how = {"timestep": 0.05, "constraints": constraints}
    nve = respa_baoab(3).without_ou()
    there = run(start, TWO_LEVEL, nve, steps=100, **how)
    assert off(constraints, there.positions) < 1e-11
    tangent = constraints.tangent(there.positions, there.velocities, MASSES)
    torch.testing.assert_close(tangent, there.velocities, rtol=0, atol=1e-12)
    assert (there.positions - start.positions).abs().max() > 0.1
    back = run(replace(there, velocities=-there.velocities), TWO_LEVEL, nve, steps=100, **how)
    torch.testing.assert_close(back.positions, start.positions, rtol=0, atol=1e-8)
    torch.testing.assert_close(back.velocities, -start.velocities, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("splitting", "levels"),
    [(respa_baoab(1), TWO_LEVEL), (respa_baoab(3), TWO_LEVEL), (baoab(), ONE_LEVEL)],
    ids=["respa(1)", "respa(3)", "baoab"],
)
def test_order_of_convergence_is_two(splitting, levels):
    constraints, start = held()

    def end(splitting, levels, steps):
        how = {"timestep": 1.0 / steps, "constraints": constraints}
        return run(start, levels, splitting.without_ou(), steps=steps, **how).positions

    exact = end(baoab(), ONE_LEVEL, 1600)
    counts = [20, 40, 80]
    errors = [(end(splitting, levels, steps) - exact).norm().item() for steps in counts]
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order == pytest.approx(2.0, abs=0.1)


def test_nve_energy_does_not_drift():
    constraints, start = held(replicas=(8,))
    energies = []
    run(
        *(start, TWO_LEVEL, respa_baoab(3).without_ou()),
        steps=1500,
        timestep=0.08,
        constraints=constraints,
        on_step=lambda s: energies.append(conserved_energy(s)),
    )
    energy = torch.stack(energies)
    drift = energy[750:].mean(dim=0) - energy[:750].mean(dim=0)
    assert drift.mean().abs() < 0.1 * energy.std(dim=0).mean()


def test_one_inner_step_is_the_known_scheme():
    """With student = teacher the slow force is nothing, and RESPA is geodesic BAOAB."""
    constraints, start = held()
    same, bath = TwoLevel(TEACHER, TEACHER, clip=None), Bath(kT=0.5, friction=0.4)
    how = {"timestep": 0.1, "bath": bath, "constraints": constraints}
    noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    respa = step(start, same, respa_baoab(1), noise=lambda *_: noise, **how)
    single = step(start, ONE_LEVEL, baoab(), noise=lambda *_: noise, **how)
    torch.testing.assert_close(respa.positions, single.positions, rtol=0, atol=1e-13)
    torch.testing.assert_close(respa.velocities, single.velocities, rtol=0, atol=1e-13)


REPLICAS, KT = 2500, 0.7


def sampled(splitting, levels, distances, masses, start, *, steps, timestep, seed=2, hold=True):
    """Many replicas of a small molecule at the end of a run, and the last O step's energies."""
    constraints = Constraints.of(distances, masses.numpy(), start.numpy(), FREE.numpy())
    x = start.expand(REPLICAS, *start.shape).clone()
    state = initial_state(x, torch.zeros_like(x), masses)
    seen = {}

    def look(k, op, now):
        if isinstance(op, OU):
            seen["twice"] = masses * now.velocities.square().sum(-1)

    state = run(
        *(state, levels, splitting),
        steps=steps,
        timestep=timestep,
        bath=Bath(kT=KT, friction=0.5),
        seed=seed,
        constraints=constraints if hold else None,
        on_op=look,
    )
    return constraints, state, seen["twice"]


def dipole(strength):
    """Two atoms pulled apart along z: a dipole in a field; and a weak spring on their centre."""
    return Analytic(
        lambda x: -strength * (x[..., 0, 2] - x[..., 1, 2]) + 0.1 * x.square().sum((-2, -1))
    )


@pytest.mark.parametrize(
    ("splitting", "levels"),
    [
        (respa_baoab(3), TwoLevel(dipole(1.0), dipole(0.7), clip=None)),
        (baoab(), SingleLevel(dipole(1.0))),
        (obabo(), SingleLevel(dipole(1.0))),
    ],
    ids=["respa(3)", "baoab", "obabo"],
)
def test_a_dumbbell_in_a_field_is_langevins_function(splitting, levels):
    masses = torch.tensor([1.0, 3.0], dtype=torch.float64)
    start = torch.tensor([[0, 0, 0.45], [0, 0, -0.45]], dtype=torch.float64)
    length = 0.9
    _, state, twice = sampled(
        splitting,
        levels,
        Distances(np.array([[0, 1]]), np.array([length])),
        masses,
        start,
        # its whole drift in one must not turn the fastest dumbbell out of reach
        steps=320 if splitting == obabo() else 160,
        timestep=0.125 if splitting == obabo() else 0.25,
    )
    cosine = (state.positions[:, 0, 2] - state.positions[:, 1, 2]) / length
    # the springs add 0.1 (m-independent): |r0|² + |r1|² = 2 R² + d²/2, which does not turn it
    a = 1.0 * length / KT
    exact = 1 / np.tanh(a) - 1 / a
    assert abs(cosine.mean() - exact) < 4 * cosine.std() / REPLICAS**0.5
    # each atom loses (1/m_i) / (1/m_0 + 1/m_1) degrees of freedom to the bond
    for atom, lost in ((0, 0.75), (1, 0.25)):
        value = twice[:, atom]
        assert abs(value.mean() - (3 - lost) * KT) < 4 * value.std() / REPLICAS**0.5


def bent(stiffness):
    """A molecule of three atoms in a field that pulls its ends to where z is large."""

    def energy(x):
        ends = x[..., 1, :] - x[..., 2, :]
        return stiffness * ends.square().sum(-1) + 0.1 * x.square().sum((-2, -1))

    return Analytic(energy)


def exact_cosine(masses):
    """Mean of cos θ of `bent` with two bonds of length 1."""
    theta = np.linspace(0, np.pi, 4001)
    c = np.cos(theta)
    m = masses.numpy()
    metric = np.sqrt((1 / m[0] + 1 / m[1]) * (1 / m[0] + 1 / m[2]) - (c / m[0]) ** 2)
    # |r1 - r2|² = 2 - 2c; the spring to the origin couples to the angle through the centre's weight
    weights = np.ones(3)
    spread = weights / weights.sum()
    inertia = (
        2
        - np.square(np.stack([spread[1] + spread[2] * c, spread[2] * np.sin(theta)])).sum(0)
        * weights.sum()
    )
    energy = 0.5 * (2 - 2 * c) + 0.1 * inertia
    p = np.sin(theta) * metric * np.exp(-energy / KT)
    return (p * c).sum() / p.sum()


@pytest.mark.parametrize("hold", [True, False])
def test_the_angle_of_a_molecule_with_held_bonds_has_its_exact_distribution(hold):
    """P(θ) ~ sin θ √det(G M⁻¹ Gᵀ) exp(-U/kT): the angle of rigid bonds knows of masses.

    Without the constraints, as if they were forgotten, the same test fails.
    """
    masses = torch.tensor([2.0, 1.0, 1.5], dtype=torch.float64)
    start = torch.tensor([[0, 0, 0], [1, 0, 0], [0.0, 1, 0]], dtype=torch.float64)
    distances = Distances(np.array([[0, 1], [0, 2]]), np.array([1.0, 1.0]))
    levels = TwoLevel(bent(0.5), bent(0.35), clip=None)
    constraints, state, twice = sampled(
        *(respa_baoab(2), levels, distances, masses, start),
        steps=160,
        timestep=0.25,
        hold=hold,
    )
    first, second = (state.positions[:, k] - state.positions[:, 0] for k in (1, 2))
    cosine = (first * second).sum(-1)
    exact = exact_cosine(masses)
    right = abs(cosine.mean() - exact) < 4 * cosine.std() / REPLICAS**0.5
    assert bool(right) == hold
    if hold:
        lost = torch.stack([constraints.lost_degrees(x, masses) for x in state.positions[:400]])
        torch.testing.assert_close(lost.sum(-1), torch.full((400,), 2.0).double())
        temperature = twice.sum(-1) / (9 - 2)
        assert abs(temperature.mean() - KT) < 4 * temperature.std() / REPLICAS**0.5


def test_heat_is_what_the_thermostat_put_in():
    constraints, start = held(replicas=(200,), kT=1e-6)
    seen = []
    end = run(
        *(start, TWO_LEVEL, respa_baoab(3)),
        steps=150,
        timestep=0.04,
        bath=Bath(kT=2.0, friction=1.0),
        seed=4,
        constraints=constraints,
        on_step=lambda s: seen.append(conserved_energy(s).mean()),
    )
    assert end.heat.mean().abs() > 5.0
    assert torch.stack(seen).std() < 2e-3 * end.heat.mean().abs()
    kinetic = kinetic_energy(end.velocities, end.masses)
    expected = 0.5 * (18 - 3) * 2.0
    assert abs(kinetic.mean() - expected) < 4 * kinetic.std() / 200**0.5


@pytest.mark.parametrize("distances", [BENT, TRIANGLE])
@pytest.mark.parametrize("fixcom", [False, True])
@pytest.mark.parametrize("thermostat", [False, True])
def test_the_compiled_loop_takes_the_same_steps(distances, fixcom, thermostat):
    n, timestep = 5, 0.4
    constraints, state = held(distances)
    noise = torch.randn(n, 6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    bath, splitting = Bath(kT=0.3, friction=0.5), fast_part(n)
    if not thermostat:
        bath, splitting, noise = None, splitting.without_ou(), noise[:0]
    draws, seen = iter(noise), []
    groups = torch.tensor([[1.0, 0, 0, 1, 0, 0], [1.0] * 6], dtype=torch.float64)

    def look(k, op, now):
        if isinstance(op, OU):
            seen.append(groups @ (now.masses[:, None] * now.velocities**2).sum(-1))

    expected = step(
        *(state, SingleLevel(STUDENT), splitting),
        timestep=timestep,
        bath=bath,
        noise=lambda *_: next(draws),
        fixcom=fixcom,
        constraints=constraints,
        on_op=look,
    )
    momenta = MASSES[:, None] * state.velocities
    found = Loop(
        *(t.numpy() for t in (state.positions[None], momenta[None], MASSES, FREE)),
        {FAST: on_arrays(STUDENT)},
        kT=0.3,
        friction=np.full((1, 6), 0.5),
        groups=groups.bool().numpy(),
        fixcom=fixcom,
        constraints=constraints,
    ).take(Program.of(splitting), timestep=timestep, noise=noise[:, None].numpy())
    close(found.positions[0], expected.positions, 1e-10)
    close(found.momenta[0], MASSES[:, None] * expected.velocities, 1e-10)
    assert found.heat == pytest.approx(float(expected.heat), rel=1e-9, abs=1e-12)
    for a, b in zip(found.twice_kinetic, seen, strict=True):
        close(a, b, 1e-9)


def outer_steps(masses, **bath):
    """Both models with the bent molecule and the dumbbell held, in steps of 0.2."""
    return OuterSteps(
        *(on_arrays(TEACHER), on_arrays(STUDENT)),
        masses=masses.numpy(),
        n=3,
        timestep=0.2,
        kT=0.3,
        groups=np.ones((1, 6), bool),
        clip=None,
        fixcom=False,
        distances=BENT,
        **bath,
    )


def test_outer_steps_know_atoms_that_are_held_and_periodic_images():
    """The last atom does not move, and the dumbbell lies across the boundary."""
    masses = MASSES.clone()
    masses[5] = torch.inf
    cell = torch.eye(3, dtype=torch.float64) * 8.0
    x = START.clone()
    x[4, 1] += 8.0
    constraints = Constraints.of(BENT, masses.numpy(), x.numpy(), cell.numpy())
    x = constraints.onto(x, masses)
    v = constraints.tangent(x, torch.randn(6, 3, dtype=torch.float64), masses)
    v[5] = 0.0
    state = initial_state(x, v, masses, cell)
    bath = Bath(kT=0.3, friction=0.5)
    end = run(
        *(state, TWO_LEVEL, respa_baoab(3)),
        steps=1,
        timestep=0.2,
        bath=bath,
        seed=8,
        constraints=constraints,
    )
    outer = outer_steps(masses, friction=np.full(6, 0.5))
    p = torch.where(masses.isfinite()[:, None], masses[:, None] * v, 0.0).numpy()
    found = outer.take(x.numpy(), p, cell.numpy(), outer.draw(CounterNoise(8), 0))
    close(found.positions, end.positions, 1e-10)
    assert np.array_equal(found.positions[5], x[5].numpy())


def test_the_virial_of_a_free_rotor_is_its_centripetal_force():
    constraints = Constraints.of(
        Distances(np.array([[0, 1]]), np.array([2.0])),
        np.array([1.0, 3.0]),
        np.array([[1.0, 0, 0], [-1.0, 0, 0]]),
        np.zeros((3, 3)),
    )
    x = torch.tensor([[1.0, 0, 0], [-1, 0, 0]], dtype=torch.float64)
    v = torch.tensor([[0, 0.6, 0], [0, -0.2, 0]], dtype=torch.float64)
    masses = torch.tensor([1.0, 3.0], dtype=torch.float64)
    found = constraints.virial(x, v, torch.zeros_like(x), masses)
    # -μ ω² d² along the bond; μ = 3/4, ω d = 0.8
    expected = torch.zeros(3, 3).double()
    expected[0, 0] = -0.75 * 0.64
    torch.testing.assert_close(found, expected)
    # a force along the bond is taken up by it
    pulled = torch.tensor([[5.0, 0, 0], [-5, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(
        constraints.virial(x, 0 * v, pulled, masses)[0, 0], torch.tensor(-10.0).double()
    )


@pytest.mark.parametrize(
    ("pairs", "lengths", "said"),
    [
        ([[0, 1], [1, 0]], [1.0, 1.0], "twice"),
        ([[0, 0]], [1.0], "same atom"),
        ([[0, 9]], [1.0], "outside 0..5"),
        ([[0, 1]], [0.0], "positive"),
        ([[0, 1]], [1.0, 2.0], "lengths of shape"),
    ],
)
def test_what_is_no_constraint_is_refused(pairs, lengths, said):
    with pytest.raises(ValueError, match=said):
        Constraints.of(
            Distances(np.array(pairs), np.array(lengths)),
            MASSES.numpy(),
            START.numpy(),
            FREE.numpy(),
        )


def test_baths_that_differ_along_a_bond_are_refused():
    constraints, start = held()
    how = {"steps": 1, "timestep": 0.1, "seed": 1, "constraints": constraints}
    friction = torch.tensor([1.0, 2, 1, 1, 1, 5])
    with pytest.raises(ValueError, match="frictions that differ"):
        run(start, ONE_LEVEL, baoab(), bath=Bath(kT=1.0, friction=friction), **how)


def test_a_step_that_loses_its_bonds_says_so():
    constraints, start = held()
    fast = replace(start, velocities=100 * start.velocities)
    with pytest.raises(ValueError, match="not found again"):
        run(fast, ONE_LEVEL, baoab().without_ou(), steps=1, timestep=1.0, constraints=constraints)


def test_chains_without_constraints_are_left_alone():
    state = initial_state(*chain_state())
    none = Constraints.of(
        Distances(np.zeros((0, 2), int), np.zeros(0)),
        state.masses.numpy(),
        state.positions.numpy(),
        np.zeros((3, 3)),
    )
    levels = SingleLevel(Analytic(stiff_springs))
    how = {"steps": 3, "timestep": 0.1}
    free = run(state, levels, baoab().without_ou(), **how)
    held_none = run(state, levels, baoab().without_ou(), constraints=none, **how)
    assert torch.equal(free.positions, held_none.positions)
