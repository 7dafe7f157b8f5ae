"""<on_hole>: what a run does when student and teacher part."""

import numpy as np
import pytest
from ipi.utils.depend import dstrip
from ipi_input import FS, LANGEVIN, ONE_LEVEL, advance

from integrators.ipi import guard as ipi_guard
from mts_driver.simulation import holes


def on_hole(action, threshold, bath=LANGEVIN):
    tags = f"<on_hole>{action}</on_hole><hole_threshold units='ev/ang'>{threshold}</hole_threshold>"
    return bath + tags


def test_a_hole_shortens_the_outer_step_until_it_is_an_inner_one(load):
    simulation = load(nmts="[1, 6]", timestep_fs=3.0, dynamics=on_hole("shorten", 1e-6))
    integrator = simulation.syslist[0].motion.integrator
    teacher, student = (simulation.fflist[name].driver for name in ("teacher", "student"))
    for k, outer_steps in enumerate((2, 3, 6, 6)):
        before = teacher.calls, student.calls
        simulation.syslist[0].motion.step(k)
        assert list(integrator.nmts) == [outer_steps, 6 // outer_steps]
        expected = (1 + 1, 6 + 1) if k == 0 else ((1, 2, 3, 6)[k], 6)
        assert (teacher.calls - before[0], student.calls - before[1]) == expected
    assert [event["outer_steps"] for event in integrator.guard.events] == [2, 3, 6, 6]
    assert simulation.syslist[0].ensemble.time == pytest.approx(4 * 3.0 * FS)
    # with one inner step in each outer one the teacher alone makes the dynamics
    single = load(nmts="[1]", weights=ONE_LEVEL, splitting="baoab", timestep_fs=0.5, student="k: 9")
    for name in ("q", "p"):
        getattr(single.syslist[0].beads, name)[:] = dstrip(
            getattr(simulation.syslist[0].beads, name)
        )
    for one in (simulation, single):
        noise = np.random.default_rng(5)
        one.prng.gvec = noise.standard_normal
    for found, expected in zip(advance(simulation, 5), advance(single, 30), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_holes_below_the_threshold_change_nothing(load):
    simulation = load(nmts="[1, 6]", dynamics=on_hole("shorten", 1e6))
    simulation.syslist[0].beads.q[:] *= 0.1  # a start at 300 K
    advance(simulation, 50)
    assert list(simulation.syslist[0].motion.nmts) == [1, 6]
    assert not simulation.syslist[0].motion.integrator.guard.events


def test_hydrogens_that_run_away_are_noticed(load):
    simulation = load(nmts="[1, 6]", dynamics=on_hole("shorten", 1e6))
    simulation.syslist[0].beads.p[:] *= 8.0
    advance(simulation, 3)
    (event, *_) = simulation.syslist[0].motion.integrator.guard.events
    assert "hydrogens at" in event["reason"] and "where 300 K are wanted" in event["reason"]
    assert simulation.syslist[0].motion.nmts[0] > 1


def test_threshold_of_a_hole_is_that_of_the_frames():
    assert ipi_guard.HOLE_EV_A == holes.HOLE_EV_A
