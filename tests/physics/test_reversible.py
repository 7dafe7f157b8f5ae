"""Gradients through trajectories: those of autograd, at constant memory, for every splitting."""

from dataclasses import dataclass, replace

import pytest
import torch
from analytic import Analytic, chain_state
from fitted import Fitted, ripple, springs

from integrators import adjoints
from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import SingleLevel, TwoLevel
from integrators.linearized import ByDifferences, linearized
from integrators.noise import CounterNoise
from integrators.reversible import Snapshots, gradient
from integrators.splitting import FAST, MIDDLE, SLOW, baoab, obabo, respa_baoab
from integrators.state import initial_state
from integrators.walk import anchor_interval

BATH = Bath(kT=0.1, friction=0.2)


def student():
    return Fitted(springs, k=1.0, k4=0.1, well=0.5)


class Teacher(Fitted):
    def __init__(self):
        super().__init__(
            lambda x, k, k4, well, height: springs(x, k, k4, well) + ripple(x, height),
            **{"k": 1.1, "k4": 0.12, "well": 0.45, "height": 0.3},
        )


@dataclass(frozen=True, eq=False)
class ThreeLevel:
    """Teacher, student, and a cheaper student of the student."""

    teacher: Fitted
    student: Fitted
    cheap: Fitted
    names = (SLOW, MIDDLE, FAST)

    def parts(self, level):
        pairs = {
            SLOW: ((self.teacher, 1.0), (self.student, -1.0)),
            MIDDLE: ((self.student, 1.0), (self.cheap, -1.0)),
            FAST: ((self.cheap, 1.0),),
        }
        return pairs[level]

    def evaluate(self, state, level):
        forces = sum(
            factor * potential(state.positions, state.cell).forces
            for potential, factor in self.parts(level)
        )
        found = self.teacher(state.positions, state.cell)._replace(forces=forces)
        return replace(state, evaluations={**state.evaluations, level: found})


def single():
    return SingleLevel(Teacher())


def two():
    return TwoLevel(Teacher(), student(), clip=None)


def three():
    return ThreeLevel(Teacher(), student(), Fitted(springs, k=0.9, k4=0.1, well=0.4))


CASES = [
    pytest.param(baoab(), single, id="baoab"),
    pytest.param(obabo(), single, id="obabo"),
    pytest.param(respa_baoab(1), two, id="respa(1)"),
    pytest.param(respa_baoab(3), two, id="respa(3)"),
    pytest.param(respa_baoab(2, 2), three, id="respa(2, 2)"),
]


def fitted_parameters(levels, splitting):
    """Of all potentials; with one inner step the student's forces cancel."""
    potentials = dict.fromkeys(p for level in levels.names for p, _ in levels.parts(level))
    some = list(potentials)[:1] if splitting == respa_baoab(1) else potentials
    return [q for potential in some for q in potential.parameters()]


def loss_of(snapshots):
    """Of positions and velocities, of all replicas, at several times."""
    x, v = snapshots.positions, snapshots.velocities
    lags = (x[1:] - x[:-1]).square().mean() if len(x) > 1 else 0.0
    return x.pow(4).mean() + lags + (x[..., 0, :] * v[..., 1, :]).sum() + 2.0 * v.square().mean()


def through_autograd(start, levels, splitting, parameters, *, steps, snapshots, **more):
    """Return loss and gradients, by a graph of the whole trajectory."""
    x = start.positions.clone().requires_grad_()
    v = start.velocities.clone().requires_grad_()
    seen = {0: (x, v)}
    state = replace(start, positions=x, velocities=v)

    def keep(now):
        seen[now.step] = now.positions, now.velocities

    run(state, levels, splitting, steps=steps, on_step=keep, **more)
    chosen = [torch.stack(parts) for parts in zip(*(seen[n] for n in snapshots), strict=True)]
    of = Snapshots(tuple(snapshots), *chosen, start.cell, start.masses, more["timestep"])
    value = loss_of(of)
    return value.detach(), torch.autograd.grad(value, (x, v, *parameters))


RUN = {"timestep": 0.1, "bath": BATH, "seed": 5}
SOME = {"steps": 40, "snapshots": [0, 20, 21, 37]}


def largest_error(found, exact):
    """Of all parts of a gradient, relative to the norm of the part."""
    parts = zip((found.positions, found.velocities, *found.parameters), exact, strict=True)
    return max(((mine - theirs).norm() / theirs.norm()).item() for mine, theirs in parts)


@pytest.mark.parametrize(("splitting", "levels"), CASES)
@pytest.mark.parametrize("bath", [BATH, None], ids=["NVT", "NVE"])
def test_it_is_what_autograd_finds(splitting, levels, bath):
    levels, start = levels(), initial_state(*chain_state((2,)))
    parameters = fitted_parameters(levels, splitting)
    of = SOME | RUN | ({} if bath else {"bath": None, "seed": None})
    splitting = splitting if bath else splitting.without_ou()
    found = gradient(start, levels, splitting, loss_of, parameters, **of)
    value, exact = through_autograd(start, levels, splitting, parameters, **of)
    assert found.loss == value
    assert largest_error(found, exact) < 1e-10


def test_it_is_what_central_differences_find():
    levels, start = two(), initial_state(*chain_state((2,)))
    parameters = fitted_parameters(levels, respa_baoab(3))
    of = {"steps": 60, "snapshots": [20, 60], "anchor_every": 60} | RUN
    found = gradient(start, levels, respa_baoab(3), loss_of, parameters, **of)

    def loss_at(parameter, value):
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.copy_(value)
        again = gradient(start, levels, respa_baoab(3), loss_of, [], **of).loss
        with torch.no_grad():
            parameter.copy_(before)
        return again

    h = 1e-5
    for parameter, mine in zip(parameters, found.parameters, strict=True):
        p = parameter.detach().clone()
        slope = (loss_at(parameter, p + h) - loss_at(parameter, p - h)) / (2 * h)
        assert mine.item() == pytest.approx(slope.item(), rel=1e-6)


def wrong_sign(state, adjoint, dt):
    adjoint = adjoint.pulled()
    velocities = adjoint.velocities - dt * adjoint.positions
    moved = replace(state, positions=state.positions - dt * state.velocities, evaluations={})
    return moved, replace(adjoint, velocities=velocities)


def forgets_a_level(state, adjoint, dt, levels, level, parameters):
    found, gone = UNDO_KICK(state, adjoint, dt, levels, level, parameters)
    return (found, adjoint) if level == FAST else (found, gone)


def forgets_the_bath(state, adjoint, dt, bath, noise):
    return UNDO_OU(state, adjoint, dt, bath, noise)[0], adjoint


def has_other_noise(state, adjoint, dt, bath, noise):
    return UNDO_OU(state, adjoint, dt, bath, noise.flip(-1))


UNDO_KICK, UNDO_OU = adjoints.undo_kick, adjoints.undo_ornstein_uhlenbeck


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("undo_drift", wrong_sign),
        ("undo_kick", forgets_a_level),
        ("undo_ornstein_uhlenbeck", forgets_the_bath),
        ("undo_ornstein_uhlenbeck", has_other_noise),
    ],
)
def test_a_fault_would_be_seen(monkeypatch, name, fault):
    monkeypatch.setattr(adjoints, name, fault)
    levels, start = two(), initial_state(*chain_state((2,)))
    parameters = fitted_parameters(levels, respa_baoab(3))
    of = SOME | RUN | {"anchor_every": 100}
    _, exact = through_autograd(
        start, levels, respa_baoab(3), parameters, **{k: of[k] for k in (*SOME, *RUN)}
    )
    try:
        found = gradient(start, levels, respa_baoab(3), loss_of, parameters, **of)
    except ValueError as error:
        assert "came back" in str(error)
    else:
        assert largest_error(found, exact) > 1e-2


@pytest.mark.parametrize("bath", [BATH, None], ids=["NVT", "NVE"])
def test_coordinates_come_back(bath):
    """A thousand steps in double precision; friction multiplies rounding by e² on the way."""
    levels, start = single(), initial_state(*chain_state())
    splitting = baoab() if bath else baoab().without_ou()
    of = {"steps": 1000, "snapshots": [1000], "timestep": 0.01, "anchor_every": 1000}
    of |= {"bath": bath, "seed": 5 if bath else None}
    found = gradient(start, levels, splitting, loss_of, [], **of)
    assert 0 < found.return_error_A < 1e-9
    assert found.steps_back == 1000


def test_single_precision_starts_anew_from_kept_states():
    levels, start = single(), initial_state(*chain_state((2,)))
    half = initial_state(*(t.float() for t in chain_state((2,))))
    of = {"steps": 400, "snapshots": [150, 400], "timestep": 0.1, "bath": BATH, "seed": 5}
    parameters = fitted_parameters(levels, baoab())
    exact = gradient(start, levels, baoab(), loss_of, parameters, **of)
    once = gradient(half, levels, baoab(), loss_of, parameters, **of, anchor_every=400)
    often = gradient(half, levels, baoab(), loss_of, parameters, **of, anchor_every=10)
    chosen = gradient(half, levels, baoab(), loss_of, parameters, **of)
    assert often.return_error_A < once.return_error_A
    assert chosen.anchor_every < 400
    assert chosen.return_error_A < 1e-3
    for mine, theirs in zip(often.parameters, exact.parameters, strict=True):
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-3)


def test_the_interval_of_kept_states_grows_with_the_tolerance():
    levels, start = single(), initial_state(*chain_state())
    of = {"steps": 100_000, "timestep": 0.1, "bath": BATH, "seed": 5}
    tight, loose = (
        anchor_interval(start, levels, baoab(), **of, tolerance_A=a) for a in (1e-12, 1e-6)
    )
    assert 1 <= tight < loose < 100_000


def test_truncation_blames_the_last_steps_only():
    """Equal to the gradient of a run that starts where the truncation ends."""
    levels, start = single(), initial_state(*chain_state())
    parameters = fitted_parameters(levels, baoab())
    later = run(start, levels, baoab(), steps=60, timestep=0.1, bath=BATH, seed=5)
    of = {"timestep": 0.1, "bath": BATH, "seed": 5}
    short = gradient(later, levels, baoab(), loss_of, parameters, steps=40, snapshots=[40], **of)
    found = gradient(
        *(start, levels, baoab(), loss_of, parameters),
        **({"steps": 100, "snapshots": [100], "truncation_steps": 40} | of),
    )
    assert found.steps_back == 40
    for mine, theirs in zip(found.parameters, short.parameters, strict=True):
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-9)
    whole = gradient(start, levels, baoab(), loss_of, parameters, steps=100, snapshots=[100], **of)
    assert abs(whole.parameters[0] - found.parameters[0]) > 1e-3 * abs(whole.parameters[0])


def test_growth_is_bounded_where_asked():
    levels, start = single(), initial_state(*chain_state())
    parameters = fitted_parameters(levels, baoab())
    of = {"steps": 100, "snapshots": [100], "anchor_every": 100} | RUN
    free = gradient(start, levels, baoab(), loss_of, parameters, **of)
    held = gradient(start, levels, baoab(), loss_of, parameters, **of, growth_bound=0.2)
    loose = gradient(start, levels, baoab(), loss_of, parameters, **of, growth_bound=1e9)
    assert free.growth > 0.2
    assert held.parameters != free.parameters
    assert loose.parameters == free.parameters


def test_differences_of_forces_serve_a_teacher_that_nobody_can_differentiate():
    levels, start = two(), initial_state(*chain_state((2,)))
    dual = TwoLevel(ByDifferences(levels.teacher), levels.student, clip=None)
    parameters = list(levels.student.parameters())
    exact = gradient(start, levels, respa_baoab(3), loss_of, parameters, **SOME, **RUN)
    found = gradient(start, dual, respa_baoab(3), loss_of, parameters, **SOME, **RUN)
    for mine, theirs in zip(found.parameters, exact.parameters, strict=True):
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_what_no_gradient_can_be_taken_of_is_said():
    start, levels = initial_state(*chain_state()), single()
    idle = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    parameters = fitted_parameters(levels, baoab())

    def fails(message, levels=levels, loss=loss_of, parameters=parameters, start=start, **more):
        of = {"steps": 4, "snapshots": [4], **RUN} | more
        splitting = respa_baoab(2) if SLOW in levels.names else baoab()
        with pytest.raises(ValueError, match=message):
            gradient(start, levels, splitting, loss, parameters, **of)

    fails("parameter 4 touches neither", parameters=[*parameters, idle])
    fails("parameter 0 is not a leaf", parameters=[torch.zeros(1)])
    fails("has no second derivatives", levels=SingleLevel(Analytic(springs_of_one)))
    fails("clipped", levels=TwoLevel(Teacher(), student(), clip=1e-3))
    fails("it must be one finite number", loss=lambda seen: seen.positions.sum() * torch.nan)
    fails("it must be one finite number", loss=lambda seen: seen.positions)
    fails("depends neither", loss=lambda seen: torch.ones(()))
    fails("ascending", snapshots=[3, 2])
    fails("0 to 4", snapshots=[5])
    fails("truncation_steps is 0", truncation_steps=0)
    fails("anchor_every is -1", anchor_every=-1)
    fails("growth_bound is 0", growth_bound=0.0)
    fails("blew up", timestep=1e6)
    noisy = replace(BATH, friction=100.0)
    fails("came back", bath=noisy, anchor_every=4, start=start)
    with pytest.raises(ValueError, match="displacement_A is 0"):
        ByDifferences(Teacher(), displacement_A=0)


def springs_of_one(x):
    return x.square().sum((-2, -1))


def test_a_pull_is_the_transposed_jacobian():
    potential, (x, *_) = Teacher(), chain_state((2,))
    parameters = list(potential.parameters())
    along = CounterNoise(3)(0, 0, x)
    by_x, by_p = linearized(potential, x, torch.zeros(3, 3), parameters).pull(along)
    h = 1e-6
    slope = potential(x + h * along, None).forces - potential(x - h * along, None).forces
    torch.testing.assert_close(by_x, slope / (2 * h), rtol=1e-7, atol=1e-8)
    assert all(p.shape == q.shape for p, q in zip(by_p, parameters, strict=True))
