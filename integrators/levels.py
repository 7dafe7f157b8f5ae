"""Force levels of a splitting, and the cache that keeps the number of model calls minimal."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from integrators.splitting import FAST, SLOW
from integrators.state import Evaluation, MDState, Potential

FULL = "full"
"""Cache key of the energy that the simulation conserves: the teacher, or the only potential."""

DEFAULT_CLIP = 6.5046
"""150 kcal/mol/Å in eV/Å, the bound on |F_teacher - F_student| of Cattin et al."""


Parts = tuple[tuple[Potential, float], ...]
"""Potentials and the factors of their forces."""


class Levels(Protocol):
    """Named force levels that can be evaluated at the positions of a state."""

    @property
    def names(self) -> tuple[str, ...]:
        """The levels on offer, which must be those of the splitting."""
        ...

    def evaluate(self, state: MDState, level: str) -> MDState:
        """Return the state with ``evaluations[level]`` known; free if it is known already."""
        ...

    def parts(self, level: str) -> Parts:
        """Return the potentials whose forces, times their factors, add up to those of a level."""
        ...


@dataclass(frozen=True)
class SingleLevel:
    """One potential, evaluated at each new set of positions; for ``baoab()`` and ``obabo()``."""

    potential: Potential

    @property
    def names(self) -> tuple[str, ...]:
        """The one level."""
        return (FAST,)

    def evaluate(self, state: MDState, level: str) -> MDState:
        """Return the state with its forces known."""
        if level in state.evaluations:
            return state
        found = self.potential(state.positions, state.cell)
        return replace(state, evaluations={FAST: found, FULL: found})

    def parts(self, level: str) -> Parts:
        """Return the one potential."""
        return ((self.potential, 1.0),)


@dataclass(frozen=True)
class TwoLevel:
    """The student as the fast level and teacher - student as the slow one.

    Parameters
    ----------
    teacher, student : Potential
        The teacher is called once an outer step and the student once an inner step, each once
        more at the start.
    clip : float or None
        Bound on the norm of an atom's slow force, eV/Å; longer ones are scaled back to it and
        counted in ``clip_events``. ``None`` for no bound.

    Raises
    ------
    ValueError
        If ``clip`` is not positive.
    """

    teacher: Potential
    student: Potential
    clip: float | None = DEFAULT_CLIP

    def __post_init__(self) -> None:
        if self.clip is not None and not (math.isfinite(self.clip) and self.clip > 0):
            raise ValueError(f"clip is {self.clip}; give a positive bound in eV/Å, or None")

    @property
    def names(self) -> tuple[str, ...]:
        """The two levels, the outer one first."""
        return (SLOW, FAST)

    def evaluate(self, state: MDState, level: str) -> MDState:
        """Return the state with the forces of ``level`` known."""
        if level in state.evaluations:
            return state
        if FAST not in state.evaluations:
            student = self.student(state.positions, state.cell)
            state = replace(state, evaluations={**state.evaluations, FAST: student})
        return self._add_slow(state) if level == SLOW else state

    def parts(self, level: str) -> Parts:
        """Return the potentials of a level, as they are where nothing is clipped."""
        fast = (self.student, 1.0)
        return ((self.teacher, 1.0), (self.student, -1.0)) if level == SLOW else (fast,)

    def _add_slow(self, state: MDState) -> MDState:
        student = state.evaluations[FAST]
        teacher = self.teacher(state.positions, state.cell)
        slow, norms = difference(teacher, student, clip=self.clip)
        clip_events = state.clip_events
        if self.clip is not None:
            clip_events = clip_events + (norms > self.clip).sum()
        return replace(
            state,
            evaluations={**state.evaluations, SLOW: slow, FULL: teacher},
            clip_events=clip_events,
            max_force_difference=torch.maximum(state.max_force_difference, norms.max()),
        )


def difference(
    teacher: Evaluation, student: Evaluation, *, clip: float | None
) -> tuple[Evaluation, Tensor]:
    """Return teacher - student, and the norms (..., N, 1) of its forces before they are clipped."""
    forces, norms = clipped(teacher.forces - student.forces, clip)
    slow = Evaluation(teacher.energy - student.energy, forces, teacher.virial - student.virial)
    return slow, norms


def clipped(forces: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    """Return forces (..., N, 3) no longer than ``clip``, and how long they were (..., N, 1)."""
    norms = torch.linalg.vector_norm(forces, dim=-1, keepdim=True)
    return forces if clip is None else forces * (clip / norms.clamp_min(clip)), norms
