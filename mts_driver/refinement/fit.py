"""Lower a loss along trajectories: a gradient, a step downhill, and on from where it ended.

Noise of gradients keeps parameters moving around where they belong. What a fit returns is therefore
a mean over its updates, the k-th of which counts as k to the power of `TAIL` (Shamir and Zhang,
arXiv 1212.1824). A killed fit goes on at its last update with the same numbers.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from integrators.state import MDState
from mts_driver.errors import UserError
from mts_driver.refinement.kept import Kept, Update, put
from mts_driver.refinement.problem import Estimate, Method, Problem, Steps
from mts_driver.refinement.steps.by_parameters import ByParameters

TAIL = 4
"""The mean reaches back over a fifth or so of all updates."""


@dataclass(frozen=True)
class FitSettings:
    """How far and how fast.

    Attributes
    ----------
    updates : int
        In all, those before a kill included.
    learning_rate : float
        Length of a step: relative to the size of a parameter (of an array: its root mean square),
        or in whatever ``steps`` measure it.
    decay : float
        Learning rate of the last update over that of the first; in between it falls evenly on a
        logarithmic scale.
    longest_gradient : float
        Of `ByParameters`: one trajectory that diverged is not to lead it astray for the next ten
        updates.
    seed : int
        Of the noise; every update has noise of its own.
    """

    updates: int
    learning_rate: float = 0.02
    decay: float = 1.0
    longest_gradient: float = 2.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.updates < 1:
            raise UserError(f"updates={self.updates}: give at least 1.")
        for name in ("learning_rate", "decay", "longest_gradient"):
            value = getattr(self, name)
            if not value > 0:
                raise UserError(f"{name}={value}: it must be positive.")
        if self.seed < 0:
            raise UserError(f"seed={self.seed}: it must be zero or positive.")

    def rate_of(self, update: int) -> float:
        """Learning rate of an update, counted from 0."""
        share = update / max(self.updates - 1, 1)
        return self.learning_rate * math.pow(self.decay, share)


OnUpdate = Callable[[int, Update], None]


def fit(
    problem: Problem,
    method: Method,
    start: MDState,
    settings: FitSettings,
    *,
    steps: Steps | None = None,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    on_update: OnUpdate | None = None,
) -> tuple[list[Update], MDState]:
    """Fit ``problem.parameters``, which are changed in place; at the end they are the mean.

    Parameters
    ----------
    problem : Problem
        Its loss may have ``last``, its parts by name, as `Goals` has; they go into the history.
    method : Method
        Where gradients come from.
    start : MDState
        Of the first trajectory; each later one starts where the one before ended.
    settings : FitSettings
        How far and how fast.
    steps : Steps, optional
        What an update follows from a gradient; `ByParameters` where it is left out.
    folder : Path, optional
        Where to keep the state, and to go on from if there is one.
    identity : mapping, optional
        JSON-able: what a state must have been written with.
    on_update : callable, optional
        Called after every update.

    Returns
    -------
    list of Update, MDState
        The history, and where the last trajectory ended.

    Raises
    ------
    UserError
        If a gradient cannot be taken, or the state is of another fit; the last good state stays.
    """
    steps = steps or ByParameters(problem.parameters, settings.longest_gradient)
    history: list[Update] = []
    kept = Kept(folder, dict(identity or {})) if folder is not None else None
    state, mean = start, {n: p.detach().clone() for n, p in problem.parameters.items()}
    if kept is not None and kept.path.exists():
        state, history, mean = kept.load(problem, steps, start)
    for k in range(len(history), settings.updates):
        begun = time.perf_counter()
        now = _numbers(problem.parameters)
        found = _estimate(problem, method, state, settings.seed, k)
        norm = _apply(problem, steps, found, settings.rate_of(k))
        for name, parameter in problem.parameters.items():
            mean[name].lerp_(parameter.detach(), (TAIL + 1) / (TAIL + 1 + k))
        # heat and counters of the next trajectory start from nothing; its noise goes on
        state = replace(found.end, evaluations={}, heat=torch.zeros_like(found.end.heat))
        history.append(
            Update(
                loss=found.loss,
                terms=dict(getattr(problem.loss, "last", {})),
                gradient_norm=norm,
                parameters=now,
                averaged=_numbers(mean),
                told=found.told,
                steps_run=found.steps_run,
                seconds=time.perf_counter() - begun,
            )
        )
        if kept is not None:
            kept.save(problem, steps, state, history, mean)
        if on_update is not None:
            on_update(k, history[-1])
    put(problem.parameters, mean)
    return history, state


def _numbers(parameters: Mapping[str, Tensor]) -> dict[str, float]:
    """Return those that are single numbers."""
    return {name: p.item() for name, p in parameters.items() if p.numel() == 1}


def _estimate(problem: Problem, method: Method, state: MDState, seed: int, k: int) -> Estimate:
    try:
        return method(problem, state, seed)
    except ValueError as error:
        raise UserError(
            f"update {k}: {error}. The parameters of update {k - 1} are kept; a lower learning "
            "rate, a shorter trajectory or truncation may help."
        ) from error


def _apply(problem: Problem, steps: Steps, found: Estimate, rate: float) -> float:
    """Take a step; return the length of the gradient."""
    if not all(bool(g.isfinite().all()) for g in found.gradients.values()):
        raise UserError("the gradient is not finite: shorten the trajectory, or truncate it.")
    moves, norm = steps(problem, found, rate)
    with torch.no_grad():
        for name, move in moves.items():
            parameter = problem.parameters[name]
            parameter += move.to(parameter)
    return norm
