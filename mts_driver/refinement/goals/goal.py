"""What a fit aims at: an observable, what it should be, and how far off it may be."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.goals.losses import CurveTarget, ScalarTarget, Term, WeightedSum


@dataclass(frozen=True, eq=False)
class Observable:
    """A curve or a number that a trajectory shows.

    Attributes
    ----------
    name : str
        For tables and pictures, such as ``g(r) O–O``.
    observe : callable
        Of `Snapshots`; returns (B,) or ().
    unit : str
        Of the value, for tables and axes; may be empty.
    x : Tensor, shape (B,), or None
        Where a curve is known; None for a number.
    x_label : str
        Of the axis of a curve.
    labels : tuple of str
        Of the points, where they are separate numbers and no curve.
    in_time : bool
        Whether it needs all snapshots, evenly spaced. Others are averages over states, for which
        every ``thinned``-th will do, and which may be reweighted.
    """

    name: str
    observe: Callable[[Snapshots], Tensor]
    unit: str = ""
    x: Tensor | None = None
    x_label: str = ""
    labels: tuple[str, ...] = ()
    in_time: bool = False
    thinned: int = 1

    def __call__(self, seen: Snapshots) -> Tensor:
        """Observe it.

        Raises
        ------
        UserError
            If states are weighted, and it needs their order in time.
        """
        if self.in_time:
            if seen.weights is not None:
                raise UserError(
                    f"{self.name} is no average over an ensemble, so that reweighting cannot fit "
                    "it: use the reversible method."
                )
            return self.observe(seen)
        return self.observe(every(seen, self.thinned))


@dataclass(frozen=True, eq=False)
class Goal:
    """An observable and its target.

    Attributes
    ----------
    observable : Observable
        What is looked at.
    target, error : Tensor, shape (B,) or ()
        What it should be, and the uncertainty of that.
    least_error : float
        Added to the error in squares; for a number, the target itself where both are 0.
    weight : float
        Of this goal in the sum.
    source : str
        Where the target is from, for reports.
    """

    observable: Observable
    target: Tensor
    error: Tensor
    least_error: float = 0.0
    weight: float = 1.0
    source: str = ""

    def term(self) -> Term:
        """Return the part of the loss: mean square of the deviation over the error.

        Of several replicas, an unbiased estimate of it, which may be negative: the mean over all
        pairs of the product of their deviations. The square of a noisy mean is too large by the
        variance of the noise, and a fit would lower this instead.
        """
        return Term(self.observable.name, self.weight, self._estimate)

    def off(self, mean: Tensor) -> float:
        """Return how far off a long average is, in errors: root mean square."""
        return math.sqrt(float(self._loss(mean)))

    @cached_property
    def _loss(self) -> Callable[[Tensor], Tensor]:
        if self.observable.x is not None:
            least = self.least_error
            return CurveTarget(self.observable.x, self.target, self.error, least_uncertainty=least)
        error = float(torch.hypot(self.error, torch.as_tensor(self.least_error).double()))
        return ScalarTarget(float(self.target), uncertainty=error or None)

    def _estimate(self, seen: Snapshots) -> Tensor:
        loss, replicas = self._loss, each_replica(seen)
        if len(replicas) == 1:
            return loss(self.observable(seen))
        found = torch.stack([self.observable(one) for one in replicas])
        mean = found.mean(0)
        # the loss is quadratic, so that around the target it knows products, too
        spread = torch.stack([loss(self.target.to(mean) + one - mean) for one in found]).sum()
        return loss(mean) - spread / (len(found) * (len(found) - 1))


@dataclass
class Goals:
    """The sum of all goals as a loss, which remembers its parts.

    Attributes
    ----------
    goals : sequence of Goal
        With names of their own.
    last : dict of str to float
        Weighted parts of the last loss by name.
    """

    goals: Sequence[Goal]
    last: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sum = WeightedSum([goal.term() for goal in self.goals])

    def __call__(self, seen: Snapshots) -> Tensor:
        """Return the loss."""
        found = self._sum(seen)
        self.last = found.parts
        return found.total

    @property
    def in_time(self) -> bool:
        """Whether one needs states in their order."""
        return any(goal.observable.in_time for goal in self.goals)


def every(seen: Snapshots, k: int) -> Snapshots:
    """Return each ``k``-th snapshot, the last one included.

    Raises
    ------
    UserError
        If they are weighted.
    """
    if k == 1:
        return seen
    if seen.weights is not None:
        raise UserError("weighted snapshots cannot be thinned out: take fewer of them.")
    some = slice((len(seen.steps) - 1) % k, None, k)
    return seen._replace(
        steps=seen.steps[some], positions=seen.positions[some], velocities=seen.velocities[some]
    )


def each_replica(seen: Snapshots) -> list[Snapshots]:
    """Return the snapshots of every replica by itself, weighted as among its own."""
    count = math.prod(seen.positions.shape[1:-2])
    if count == 1:
        return [seen]
    positions, velocities = (x.flatten(1, -3) for x in (seen.positions, seen.velocities))
    cells = seen.cell.expand(*seen.positions.shape[1:-2], 3, 3).reshape(count, 3, 3)
    weights = None if seen.weights is None else seen.weights.flatten(1)
    return [
        seen._replace(
            positions=positions[:, r],
            velocities=velocities[:, r],
            cell=cells[r],
            weights=None if weights is None else weights[:, r] / weights[:, r].sum(),
        )
        for r in range(count)
    ]


def average(values: Tensor, seen: Snapshots) -> Tensor:
    """Return the mean of (K, ..., B) over snapshots and replicas, (B,), as they are weighted."""
    rows = values.flatten(0, -2)
    if seen.weights is None:
        return rows.mean(0)
    return seen.weights.flatten() @ rows
