"""Gaps filled by shots from both ends, where the trajectory is known."""

import numpy as np
import pytest
import torch
from analytic import Analytic, chain_state, stiff_and_soft, stiff_springs

from integrators.levels import SingleLevel
from integrators.splitting import baoab
from integrators.state import initial_state
from integrators.walk import run_and_keep
from mts_driver.errors import UserError
from mts_driver.super_resolution.bridge import bridge
from mts_driver.super_resolution.frames import Frames, gaps
from mts_driver.super_resolution.splines import spline

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


def test_what_cannot_be_bridged_is_said(frames):
    between, _ = gaps(frames, 4)
    potential = Analytic(stiff_springs)
    with pytest.raises(UserError, match="steps=1: give at least 2"):
        bridge(between, potential, MASSES, steps=1)
    alone, _ = gaps(Frames(frames.numbers, TIMESTEP, frames.positions_A), 4)
    with pytest.raises(UserError, match="a bridge needs velocities"):
        bridge(alone, potential, MASSES, steps=4)
    with pytest.raises(UserError, match="a shot blew up"):
        bridge(between, Analytic(lambda x: -1e200 * x.pow(4).sum((-2, -1))), MASSES, steps=4)
