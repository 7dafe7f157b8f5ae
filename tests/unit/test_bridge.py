"""Gaps filled by shots from both ends, where the trajectory is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from analytic import Analytic, chain_state, stiff_and_soft, stiff_springs

from integrators.levels import SingleLevel
from integrators.splitting import baoab
from integrators.state import initial_state
from integrators.walk import run_and_keep
from mts_driver.errors import UserError
from mts_driver.super_resolution.frames import Frames, gaps
from mts_driver.super_resolution.ways.bridge import bridge
from mts_driver.super_resolution.ways.splines import spline

TIMESTEP = 0.05
MASSES = chain_state()[2].numpy()


@pytest.fixture(scope="module")
def frames():
    """A chain of atoms without a thermostat, in the potential of the teacher."""
    teacher = Analytic(stiff_and_soft)
    start = initial_state(*chain_state())
    _, states = run_and_keep(
        *(start, SingleLevel(teacher), baoab().without_ou(), range(401)),
        steps=400,
        timestep=TIMESTEP,
    )
    x, v = (
        torch.stack([getattr(states[n], name) for n in range(401)])
        for name in ("positions", "velocities")
    )
    a = teacher(x, torch.zeros(3, 3)).forces / torch.as_tensor(MASSES)[:, None]
    return Frames(np.array([1] * 4), TIMESTEP, *(t.numpy() for t in (x, v, a)))


@pytest.mark.parametrize("stride", [2, 10, 40])
def test_the_potential_of_the_run_gives_its_frames_back(frames, stride):
    between, truth = gaps(frames, stride)
    found = bridge(between, Analytic(stiff_and_soft), MASSES, steps=stride).positions_A
    assert found.shape == truth.shape
    assert np.abs(found - truth).max() < 1e-11


@pytest.mark.parametrize(("stride", "better"), [(10, 5.0), (20, 5.0), (40, 3.0)])
def test_a_student_beats_splines_by_what_it_knows(frames, stride, better):
    between, truth = gaps(frames, stride)
    times = TIMESTEP * np.arange(1, stride)
    # its forces are a third of the teacher's off
    bridged = bridge(between, Analytic(stiff_springs), MASSES, steps=stride).positions_A
    ours = np.abs(bridged - truth).mean()
    theirs = np.abs(spline(between, times, "quintic") - truth).mean()
    assert ours * better < theirs


@pytest.mark.parametrize(("stride", "calls"), [(6, 5), (7, 5), (12, 7), (2, 1)])
def test_calls_of_the_teacher_fall_within_the_gap(frames, stride, calls):
    between, truth = gaps(frames, stride)
    teacher, student = Analytic(stiff_and_soft), Analytic(stiff_springs)
    how = {"masses": MASSES, "steps": stride, "teacher": teacher, "teacher_calls": calls}
    assert np.abs(bridge(between, student, **how).positions_A - truth).max() < 1e-4


@pytest.mark.parametrize("stride", [20, 40])
def test_calls_of_the_teacher_make_it_better(frames, stride):
    between, truth = gaps(frames, stride)
    models = {"student": Analytic(stiff_springs), "teacher": Analytic(stiff_and_soft)}
    off = [
        np.abs(
            bridge(between, masses=MASSES, steps=stride, teacher_calls=calls, **models).positions_A
            - truth
        ).mean()
        for calls in (0, 3)
    ]
    assert 3.0 * off[1] < off[0]


def test_forces_at_the_ends_make_it_better(frames):
    """Of what the student misses, a line between the ends is known then."""
    off = []
    for known in (2, 3):
        between, truth = gaps(frames, 20)
        between = between.known(known, "this")
        found = bridge(between, Analytic(stiff_springs), MASSES, steps=20).positions_A
        off.append(np.abs(found - truth).mean())
    assert 3.0 * off[1] < off[0]


def test_how_far_shots_go_astray_is_what_they_are_mended_by(frames):
    between = gaps(frames, 10)[0].known(2, "this")
    same = bridge(between, Analytic(stiff_and_soft), MASSES, steps=10)
    assert same.astray_A.max() < 1e-11 and same.expected_A.max() < 1e-11
    right = (between.right[0].copy(), *between.right[1:])
    right[0][2, 1] += 0.3
    broken = replace(between, right=right)
    found = bridge(broken, Analytic(stiff_and_soft), MASSES, steps=10)
    assert found.astray_A[2, 1] == pytest.approx(0.3 * 3**0.5)
    assert np.delete(found.astray_A.ravel(), 2 * 4 + 1).max() < 1e-11


def test_what_cannot_be_bridged_is_said(frames):
    between, _ = gaps(frames, 4)
    potential = Analytic(stiff_springs)
    with pytest.raises(UserError, match="steps=1: give at least 2"):
        bridge(between, potential, MASSES, steps=1)
    alone, _ = gaps(Frames(frames.numbers, TIMESTEP, frames.positions_A), 4)
    with pytest.raises(UserError, match="a bridge needs velocities"):
        bridge(alone, potential, MASSES, steps=4)
    for calls, teacher in ((1, None), (4, potential)):
        with pytest.raises(UserError, match=f"teacher_calls={calls}: give 0 to 3, with a teacher"):
            bridge(between, potential, MASSES, steps=4, teacher=teacher, teacher_calls=calls)
    with pytest.raises(UserError, match="a shot blew up"):
        bridge(between, Analytic(lambda x: -1e200 * x.pow(4).sum((-2, -1))), MASSES, steps=4)
