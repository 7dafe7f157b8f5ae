"""Splittings of the Langevin equations, written as data.

A splitting is a sequence of exact sub-steps applied from left to right::

    Kick(level, w)   v <- v + w dt F_level / m
    Drift(w)         x <- x + w dt v
    OU(w)            v <- c v + sqrt((1 - c²) kT / m) xi,   c = exp(-gamma w dt)

Each backend has one executor that walks this data (``engine.step`` on tensors, ``ipi.integrator``
inside i-PI), so that the algorithm is written down once. Weights are exact fractions of the outer
time step dt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

SLOW = "slow"
"""Level of the correction teacher - student, evaluated once an outer step."""
MIDDLE = "middle"
"""Level between the two, student - cheaper student, of a splitting with three levels."""
FAST = "fast"
"""Level of the student, or of the only force of a single-level splitting."""

_HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Kick:
    """Momentum update with the forces of one level over ``weight`` of the outer step."""

    level: str
    weight: Fraction


@dataclass(frozen=True)
class Drift:
    """Position update over ``weight`` of the outer step."""

    weight: Fraction


@dataclass(frozen=True)
class OU:
    """Exact Ornstein-Uhlenbeck update of the velocities over ``weight`` of the outer step."""

    weight: Fraction


Operation = Kick | Drift | OU


@dataclass(frozen=True)
class Splitting:
    """A time-symmetric and consistent splitting of one outer step.

    Parameters
    ----------
    operations : tuple of Kick, Drift, OU
        Sub-steps in the order in which they are applied.
    name : str
        Used in messages only.

    Raises
    ------
    ValueError
        If the sequence is not a palindrome, if a weight is not a positive ``Fraction``, if the
        drifts, the kicks of any level, or the OU steps (where there are any) do not add up to one.
    """

    operations: tuple[Operation, ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        for k, op in enumerate(self.operations):
            if not isinstance(op, Kick | Drift | OU):
                raise ValueError(
                    f"operation {k} of splitting {self.name!r} is {op!r}; use Kick, Drift or OU"
                )
            if not isinstance(op.weight, Fraction) or op.weight <= 0:
                raise ValueError(
                    f"operation {k} of splitting {self.name!r} has weight {op.weight!r}; "
                    "weights are positive fractions.Fraction, so that they add up exactly"
                )
        if self.operations != self.operations[::-1]:
            raise ValueError(
                f"splitting {self.name!r} is not a palindrome; a sequence that does not read the "
                "same from right to left is neither time-reversible nor of second order"
            )
        totals = {"the drifts": sum(op.weight for op in self.operations if isinstance(op, Drift))}
        for level in self.levels:
            totals[f"the kicks of level {level!r}"] = sum(
                op.weight for op in self.operations if isinstance(op, Kick) and op.level == level
            )
        if self.has_ou:
            totals["the OU steps"] = sum(op.weight for op in self.operations if isinstance(op, OU))
        for what, total in totals.items():
            if total != 1:
                raise ValueError(f"{what} of splitting {self.name!r} add up to {total}, not to 1")

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def __getitem__(self, index: int) -> Operation:
        return self.operations[index]

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the force levels in the order of their first kick, the outermost first."""
        return tuple(dict.fromkeys(op.level for op in self.operations if isinstance(op, Kick)))

    @property
    def has_ou(self) -> bool:
        """Whether the splitting has a thermostat."""
        return any(isinstance(op, OU) for op in self.operations)

    def repeated(self, times: int) -> Splitting:
        """Return ``times`` steps of this splitting, each of a part of the time, as one."""
        part = tuple(replace(op, weight=op.weight / times) for op in self.operations)
        return Splitting(part * times, f"{times} x {self.name}" if times > 1 else self.name)

    def without_ou(self) -> Splitting:
        """Return the same splitting without its thermostat, for constant-energy runs."""
        kept = tuple(op for op in self.operations if not isinstance(op, OU))
        return Splitting(kept, f"{self.name} without OU")


def respa_baoab(*counts: int) -> Splitting:
    """RESPA-BAOAB with the thermostat inside the innermost loop.

    ``respa_baoab(n)`` is ``B_slow(½) [B_fast(1/2n) A(1/2n) O(1/n) A(1/2n) B_fast(1/2n)]^n
    B_slow(½)``, Algorithm 1 of Cattin et al., arXiv:2510.06562. Neighbouring fast half kicks stay
    apart, as in the paper. ``respa_baoab(a, b)`` has a third level between the two:
    ``B_slow(½) [B_middle(1/2a) [B_fast(1/2ab) A O A B_fast(1/2ab)]^b B_middle(1/2a)]^a B_slow(½)``.

    Parameters
    ----------
    *counts : int
        One or two numbers of at least 1: how often each level after the slow one is applied in a
        step of the level before.

    Raises
    ------
    ValueError
        If there are more, or one is not a positive integer.
    """
    if len(counts) not in (1, 2):
        raise ValueError(f"counts are {counts}; give one for two levels, two for three")
    for n in counts:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n is {n!r}; the number of inner steps is an integer of at least 1")
    whole = Fraction(1, math.prod(counts))  # of an inner step
    kick, drift = Kick(FAST, whole / 2), Drift(whole / 2)
    operations: tuple[Operation, ...] = (kick, drift, OU(whole), drift, kick)
    for level, n in zip((MIDDLE, SLOW)[2 - len(counts) :], reversed(counts), strict=True):
        whole *= n
        outer = Kick(level, whole / 2)
        operations = (outer, *operations * n, outer)
    return Splitting(operations, f"respa-baoab({', '.join(map(str, counts))})")


def fast_part(n: int) -> Splitting:
    """Return ``respa_baoab(n)`` without its slow kicks: ``n`` steps of BAOAB, in one outer step."""
    kept = (op for op in respa_baoab(n) if not (isinstance(op, Kick) and op.level == SLOW))
    return Splitting(tuple(kept), f"{n} x baoab")


def baoab() -> Splitting:
    """Single-level BAOAB of Leimkuhler and Matthews; its only force level is ``"fast"``."""
    kick, drift = Kick(FAST, _HALF), Drift(_HALF)
    return Splitting((kick, drift, OU(Fraction(1)), drift, kick), "baoab")


def obabo() -> Splitting:
    """Single-level OBABO of Bussi and Parrinello; its only force level is ``"fast"``."""
    ou, kick = OU(_HALF), Kick(FAST, _HALF)
    return Splitting((ou, kick, Drift(Fraction(1)), kick, ou), "obabo")
