"""Whole outer steps in a driver that has both models, several a message: ``<device_steps>``.

The driver runs ahead of i-PI and returns every step on its way; i-PI then takes one a step, with
its outputs, checks and checkpoints as ever. Whatever has changed in between, such as an exchange of
replicas, is noticed, and the steps ahead are taken again from there. Where that happens twice, only
one is taken at a time. While i-PI sees to the steps of a message, the driver is at the next.
"""

from __future__ import annotations

import time
from collections import deque
from copy import deepcopy
from typing import Any

import numpy as np
from ipi.utils.depend import dstrip
from ipi.utils.messages import info, verbosity

from integrators.ipi.drivers import TakesOuterSteps, drivers
from integrators.ipi.handover import obstacle, request, take_over

YIELD_S = 1e-3


class RunAhead:
    """The outer steps of one integrator, taken elsewhere.

    Parameters
    ----------
    integrator : integrators.ipi.integrator.RespaMixin
        Bound.
    steps : int
        Outer steps a message.
    teacher, student : TakesOuterSteps
        What evaluates both in i-PI; of one driver.
    """

    def __init__(
        self, integrator, steps: int, teacher: TakesOuterSteps, student: TakesOuterSteps
    ) -> None:
        self._of, self._steps = integrator, steps
        self._teacher, self._student = teacher, student
        # what i-PI asks for at the start need not be evaluated again
        teacher.join(student)
        self._ahead: deque[dict[str, np.ndarray]] = deque()
        self._begun: Any = None  # what was asked for and is not here yet, behind the steps ahead
        self._seeds: deque[int] = deque()  # of both
        self._left, self._temperature = np.zeros(0), 0.0
        self._in_vain = 0

    @classmethod
    def of(cls, integrator, steps: int) -> RunAhead | None:
        """Return one if the input asks for it; say so where it cannot be had."""
        if steps == 0:
            return None
        teacher, student = drivers(integrator)
        reason = obstacle(integrator)
        if len(integrator.ensemble.bcomp):
            reason = reason or "there is a bias"
        if any(f.nbeads != integrator.beads.nbeads for f in integrator.forces.mforces):
            reason = reason or "the teacher is on fewer beads"
        found = None
        if (
            not isinstance(teacher, TakesOuterSteps)
            or not isinstance(student, TakesOuterSteps)
            or teacher.address != student.address
        ):
            reason = reason or "teacher and student are not <ffdirect>s of one ZeroMQ driver"
        elif not reason:
            found = cls(integrator, steps, teacher, student)
        where = (
            f"not in a driver, since {reason}" if reason else f"in the driver, {steps} a message"
        )
        info(f" @RESPA: outer steps are taken {where}", verbosity.low)
        return found

    def step(self) -> bool:
        """Take one outer step; False where it cannot be, and must be taken by i-PI."""
        of = self._of
        if int(of.nmts[0]) != 1:  # the outer step was shortened
            self._forget()
            return False
        of.see_first_force()
        here = np.concatenate([dstrip(of.beads.q).ravel(), dstrip(of.beads.p).ravel()])
        seed = _seed(of.prng.rng[0])
        as_left = bool(self._seeds) and seed == self._seeds[0] and np.array_equal(here, self._left)
        if not as_left or float(of.ensemble.temp) != self._temperature:  # a ramp changes only that
            self._count_in_vain()
            self._forget()
            self._begin(*request(of, int(of.nmts[1]), float(of.dt)), seed, deepcopy(of.prng.rng[0]))
        if not self._ahead:
            self._fetch()
        found = self._ahead.popleft()
        self._seeds.popleft()
        take_over(of, found)
        self._left = np.concatenate([found["q"].ravel(), found["p"].ravel()])
        cell = np.array(dstrip(of.forces.cell.h))
        for pes, prefix in ((self._teacher, "teacher_"), (self._student, "")):
            results = (found[prefix + name] for name in ("energy", "forces", "virial"))
            pes.remember(found["q"], cell, *results)
        of.record_slow_force(found["teacher_forces"] - found["forces"])
        return True

    def _count_in_vain(self) -> None:
        """Stop running ahead if the steps were in vain for the second time."""
        self._in_vain += bool(self._seeds)
        if self._in_vain == 2 and self._steps > 1:
            self._steps = 1
            info(
                " @RESPA: outer steps are taken one a message from now on, since something else "
                "changes the state or draws random numbers in between",
                verbosity.low,
            )

    def _forget(self) -> None:
        """Drop all steps ahead."""
        self._ahead.clear()
        self._seeds.clear()
        self._begun = None

    def _begin(self, values, arrays, seed: int, later) -> None:
        """Ask for steps; the random numbers of those after the first are still i-PI's to draw."""
        seeds = [seed, *(_seed(later) for _ in range(self._steps - 1))]
        self._seeds += seeds
        self._temperature = float(self._of.ensemble.temp)
        values = {**values, "seeds": seeds, "clip": float(self._of.force_clip)}
        self._begun = self._student.begin_run(values, arrays), values, arrays, later

    def _fetch(self) -> None:
        """Take the steps that were asked for, and ask for the next, while i-PI sees to these."""
        (question, values, arrays, later), self._begun = self._begun, None
        found = self._student.finish_run(question)
        steps = len(found["q"])
        self._ahead.extend({name: array[k] for name, array in found.items()} for k in range(steps))
        if steps < self._steps:
            # the model failed on the way: what happens before is seen first
            self._seeds = deque(list(self._seeds)[:steps])
        elif self._in_vain == 0:
            last = {name: found[name][-1] for name in ("q", "p", "extra") if name in found}
            arrays = {**arrays, **last}
            self._begin(values, arrays, _seed(later), later)
            # else the message, and the driver, may wait for a core until i-PI rests
            time.sleep(YIELD_S)


def _seed(generator) -> int:
    """Draw the seed of an outer step's noise."""
    return int(generator.uniform() * 2**53)
