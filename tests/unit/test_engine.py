from itertools import pairwise

import pytest
import torch
from analytic import Analytic, Tape, chain_state, stiff_and_soft, stiff_springs

from integrators.bath import BOLTZMANN_EV_K, Bath
from integrators.engine import conserved_energy, potential_energy, run, step
from integrators.levels import SingleLevel, TwoLevel
from integrators.noise import CounterNoise
from integrators.splitting import OU, baoab, obabo, respa_baoab
from integrators.state import initial_state
from integrators.thermometer import Thermometer
from mts_driver import units

BATH = Bath(kT=0.7, friction=0.4)


def two_level(clip=None):
    return TwoLevel(Analytic(stiff_and_soft), Analytic(stiff_springs), clip=clip)


@pytest.mark.parametrize("n", [1, 4, 6])
def test_teacher_once_and_student_n_times_per_outer_step(n):
    levels = two_level()
    run(
        initial_state(*chain_state()),
        levels,
        respa_baoab(n),
        steps=5,
        timestep=0.1,
        bath=BATH,
        seed=1,
    )
    assert levels.teacher.calls == 5 + 1
    assert levels.student.calls == 5 * n + 1


@pytest.mark.parametrize("splitting", [baoab(), obabo()], ids=lambda s: s.name)
def test_single_level_calls_once_per_step(splitting):
    levels = SingleLevel(Analytic(stiff_springs))
    run(initial_state(*chain_state()), levels, splitting, steps=7, timestep=0.1, bath=BATH, seed=1)
    assert levels.potential.calls == 8


def test_one_inner_step_is_plain_baoab_of_the_teacher():
    noise = list(torch.randn(20, 4, 3, dtype=torch.float64))
    start = initial_state(*chain_state())
    plain, respa = start, start
    single, double = SingleLevel(Analytic(stiff_and_soft)), two_level()
    tapes = Tape(noise), Tape(noise)
    for _ in range(20):
        plain = step(plain, single, baoab(), timestep=0.1, bath=BATH, noise=tapes[0])
        respa = step(respa, double, respa_baoab(1), timestep=0.1, bath=BATH, noise=tapes[1])
    torch.testing.assert_close(respa.positions, plain.positions, rtol=0, atol=1e-12)
    torch.testing.assert_close(respa.velocities, plain.velocities, rtol=0, atol=1e-12)


def test_teacher_equal_to_student_is_single_stepping_bitwise():
    noise = list(torch.randn(40, 4, 3, dtype=torch.float64))
    potential = Analytic(stiff_springs)
    start = initial_state(*chain_state())
    plain, respa = start, start
    tapes = Tape(noise), Tape(noise)
    for _ in range(10):  # powers of two, so that the sub-steps are the same numbers
        respa = step(
            respa,
            TwoLevel(potential, potential),
            respa_baoab(4),
            timestep=0.25,
            bath=BATH,
            noise=tapes[0],
        )
        for _ in range(4):
            plain = step(
                plain,
                SingleLevel(potential),
                baoab(),
                timestep=0.0625,
                bath=BATH,
                noise=tapes[1],
            )
    assert torch.equal(respa.positions, plain.positions)
    assert torch.equal(respa.velocities, plain.velocities)


def test_replicas_evolve_as_if_alone():
    noise = torch.randn(30, 5, 4, 3, dtype=torch.float64)
    positions, velocities, masses = chain_state((5,))
    batch = initial_state(positions, velocities, masses)
    alone = initial_state(positions[3], velocities[3], masses)
    tapes = Tape(noise), Tape(noise[:, 3])
    for _ in range(10):
        batch = step(batch, two_level(0.2), respa_baoab(3), timestep=0.1, bath=BATH, noise=tapes[0])
        alone = step(alone, two_level(0.2), respa_baoab(3), timestep=0.1, bath=BATH, noise=tapes[1])
    torch.testing.assert_close(batch.positions[3], alone.positions, rtol=0, atol=1e-12)
    torch.testing.assert_close(conserved_energy(batch)[3], conserved_energy(alone))


def test_a_continued_run_is_the_uninterrupted_one():
    options = {"timestep": 0.1, "bath": BATH, "seed": 11}
    start = initial_state(*chain_state())
    whole = run(start, two_level(), respa_baoab(3), steps=20, **options)
    half = run(start, two_level(), respa_baoab(3), steps=9, **options)
    again = run(half, two_level(), respa_baoab(3), steps=11, **options)
    assert again.step == 20
    assert torch.equal(again.positions, whole.positions)
    assert torch.equal(again.heat, whole.heat)
    assert torch.equal(start.positions, chain_state()[0])


def test_noise_depends_on_seed_step_and_operation_only():
    like = torch.zeros(50, 3, dtype=torch.float64)
    noise = CounterNoise(5)
    first = noise(2, 3, like)
    assert torch.equal(CounterNoise(5)(2, 3, like), first)
    others = [noise(3, 2, like), noise(2, 4, like), CounterNoise(6)(2, 3, like)]
    assert all(not torch.equal(first, other) for other in others)
    many = torch.stack([noise(s, 0, like) for s in range(200)]).flatten()
    assert abs(many.mean()) < 4 / len(many) ** 0.5
    assert abs(many.var() - 1) < 4 * (2 / len(many)) ** 0.5


def test_slow_force_is_clipped_per_atom_and_counted():
    pull = torch.tensor([[3.0, 4.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, -2.0]], dtype=torch.float64)
    levels = TwoLevel(
        Analytic(lambda x: -(pull * x).sum((-2, -1))), Analytic(lambda x: 0 * x.sum()), clip=1.0
    )
    state = levels.evaluate(initial_state(*chain_state(n_atoms=3)), "slow")
    expected = torch.tensor([[0.6, 0.8, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, -1.0]])
    torch.testing.assert_close(state.evaluations["slow"].forces, expected.double())
    assert state.clip_events == 2
    assert state.max_force_difference == 5.0
    assert levels.evaluate(state, "slow") is state


def test_per_atom_friction_leaves_atoms_without_friction_alone():
    bath = Bath(kT=1.0, friction=torch.tensor([0.0, 5.0, 0.0, 0.0]))
    free = SingleLevel(Analytic(lambda x: 0 * x.sum((-2, -1))))
    start = initial_state(*chain_state())
    end = run(start, free, baoab(), steps=3, timestep=0.1, bath=bath, seed=0)
    changed = (end.velocities - start.velocities).abs().amax(-1) > 1e-12
    assert changed.tolist() == [False, True, False, False]


def test_thermometer_reads_groups_after_ou_only():
    masses = torch.tensor([1.0, 3.0, 1.0, 5.0], dtype=torch.float64)
    positions, velocities, _ = chain_state((2,))
    seen = []
    thermometer = Thermometer({"H": masses == 1, "heavy": masses > 1})
    assert thermometer.temperatures_K == {}

    def observe(k, op, state):
        thermometer(k, op, state)
        if isinstance(op, OU):
            seen.append(masses * state.velocities.square().mean(-1) / BOLTZMANN_EV_K)

    state = initial_state(positions, velocities, masses)
    bath = Bath.from_temperature(temperature_K=300, friction_per_ps=100)
    run(state, two_level(), respa_baoab(3), steps=4, timestep=0.1, bath=bath, seed=1, on_op=observe)
    assert thermometer.count == len(seen) == 12
    readings = torch.stack(seen)
    assert thermometer.temperatures_K["H"] == pytest.approx(readings[..., masses == 1].mean())
    assert thermometer.temperatures_K["all"] == pytest.approx(readings.mean())
    with pytest.raises(ValueError, match="'H' has no atom"):
        Thermometer({"H": masses > 9})


def test_thermometer_divides_by_the_degrees_of_freedom_that_are_left():
    lost = torch.tensor([0.9, 0.1, 0.0, 0.0], dtype=torch.float64)
    masses = torch.tensor([1.0, 9.0, 1.0, 9.0], dtype=torch.float64)
    positions, velocities, _ = chain_state((3,))
    groups = {"light": masses == 1, "heavy": masses > 1}
    found = [Thermometer(groups), Thermometer(groups, None, lost)]
    for thermometer in found:
        thermometer(0, OU(1), initial_state(positions, velocities, masses))
    assert found[1].degrees == pytest.approx({"light": 5.1, "heavy": 5.9, "all": 11.0})
    for name, degrees in found[1].degrees.items():
        plain = found[0].temperatures_K[name] * found[0].degrees[name]
        assert found[1].temperatures_K[name] == pytest.approx(plain / degrees)


def test_boltzmann_is_the_constant_of_the_project():
    assert BOLTZMANN_EV_K == units.BOLTZMANN_EV_K
    bath = Bath.from_temperature(temperature_K=300.0, friction_per_ps=2.0)
    assert bath.kT == pytest.approx(0.025852, rel=1e-4)
    assert bath.friction == 0.002


def test_energy_before_the_first_step_is_an_error_and_then_known():
    state = initial_state(*chain_state())
    with pytest.raises(ValueError, match="not known yet"):
        potential_energy(state)
    states = []
    run(
        state,
        two_level(),
        respa_baoab(2).without_ou(),
        steps=3,
        timestep=0.01,
        on_step=states.append,
    )
    assert [s.step for s in states] == [1, 2, 3]
    for before, after in pairwise(states):
        torch.testing.assert_close(
            conserved_energy(after), conserved_energy(before), rtol=1e-3, atol=0
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splitting": baoab()}, "SingleLevel with baoab"),
        ({"timestep": 0.0}, "timestep is 0.0"),
        ({"timestep": float("nan")}, "timestep is nan"),
        ({"steps": -1}, "steps is -1"),
        ({"bath": None}, "give bath= and seed="),
        ({"seed": None}, "give bath= and seed="),
        ({"seed": -3}, "seed is -3"),
        ({"splitting": respa_baoab(2).without_ou()}, "leave bath out"),
    ],
)
def test_bad_runs_are_refused(change, message):
    options = {"splitting": respa_baoab(2), "steps": 1, "timestep": 0.1, "bath": BATH, "seed": 1}
    options |= change
    splitting = options.pop("splitting")
    with pytest.raises(ValueError, match=message):
        run(initial_state(*chain_state()), two_level(), splitting, **options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("positions", torch.zeros(4, 2), "need \\(..., N, 3\\)"),
        ("positions", torch.full((4, 3), float("nan")), "positions hold a number"),
        ("velocities", torch.zeros(3, 3), "must be the same"),
        ("masses", torch.ones(3), "one per atom"),
        ("masses", torch.tensor([1.0, 1.0, 0.0, 1.0]), "masses must be positive"),
        ("cell", torch.zeros(3), "cell has shape"),
    ],
)
def test_bad_states_are_refused(name, value, message):
    arrays = dict(zip(("positions", "velocities", "masses"), chain_state(), strict=True))
    with pytest.raises(ValueError, match=message):
        initial_state(**(arrays | {name: value}))


@pytest.mark.parametrize(
    ("kT", "friction", "message"),
    [
        (-1.0, 1.0, "kT is -1.0"),
        (float("nan"), 1.0, "kT is nan"),
        (1.0, -0.1, "friction is -0.1"),
        (1.0, torch.ones(2, 3), "need a number or"),
    ],
)
def test_bad_baths_are_refused(kT, friction, message):
    with pytest.raises(ValueError, match=message):
        Bath(kT=kT, friction=friction)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("inf")])
def test_bad_clips_are_refused(clip):
    with pytest.raises(ValueError, match="clip is"):
        two_level(clip)


def test_thermostat_without_bath_is_refused_by_step():
    with pytest.raises(ValueError, match="give bath= and noise="):
        step(initial_state(*chain_state()), two_level(), respa_baoab(1), timestep=0.1)
