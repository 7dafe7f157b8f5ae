"""What a model shows, with errors: trajectories in blocks, each observed by itself."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from integrators.state import MDState
from mts_driver.errors import UserError
from mts_driver.refinement.goals.goal import Observable, each_replica
from mts_driver.refinement.problem import Problem, continued, moving_parts
from mts_driver.tensor_files import load_tensors, save_tensors

OnBlock = Callable[[int, int], None]
"""``on_block(done, all)``."""


@dataclass(frozen=True, eq=False)
class Averages:
    """Mean and standard error over blocks.

    Attributes
    ----------
    mean, error : dict of str to Tensor, shapes (B,) or ()
        By the names of observables; errors are of the spread between blocks and replicas, NaN of a
        single one.
    end : MDState
        Of the trajectory.
    """

    mean: dict[str, Tensor]
    error: dict[str, Tensor]
    end: MDState


@torch.no_grad()
def averages(
    problem: Problem,
    observables: Sequence[Observable],
    start: MDState,
    *,
    blocks: int,
    seed: int,
    keep: Path | None = None,
    on_block: OnBlock | None = None,
) -> Averages:
    """Run ``blocks`` trajectories of a problem, one after another, and average what they show.

    Parameters
    ----------
    problem : Problem
        Its ``settle_steps`` are run once, before the first block; its loss is not asked.
    observables : sequence of Observable
        What to look at.
    start : MDState
        Where to begin.
    blocks : int
        How many.
    seed : int
        Of the noise.
    keep : Path, optional
        A file to go on from after a kill.
    on_block : callable, optional
        Told how many are done.

    Raises
    ------
    UserError
        If the file is of other observables, or the trajectory blows up.
    """
    found: dict[str, list[Tensor]] = {one.name: [] for one in observables}
    state = None
    if keep is not None and keep.exists():
        state, found = _read(keep, start, list(found))
    if state is None:
        state = problem.settled(start, seed)
    replicas = state.positions.shape[:-2].numel()
    for k in range(len(next(iter(found.values()))) // replicas, blocks):
        seen, state = problem.trajectory(state, seed)
        if not bool(state.positions.isfinite().all()):
            raise UserError(
                f"block {k}: positions are not finite; the model is not stable at this time step."
            )
        for alone in each_replica(seen):
            for one in observables:
                found[one.name].append(one(alone))
        if keep is not None:
            _write(keep, state, found)
        if on_block is not None:
            on_block(k + 1, blocks)
    stacked = {name: torch.stack(values) for name, values in found.items()}
    return Averages(
        mean={name: values.mean(0) for name, values in stacked.items()},
        error={name: values.std(0) / math.sqrt(len(values)) for name, values in stacked.items()},
        end=replace(state, evaluations={}),
    )


def _write(path: Path, state: MDState, found: dict[str, list[Tensor]]) -> None:
    save_tensors(path, {**moving_parts(state), "found": found})


def _read(path: Path, start: MDState, names: list[str]) -> tuple[MDState, dict[str, list[Tensor]]]:
    remedy = "remove it to start anew."
    kept = load_tensors(path, remedy=remedy)
    if list(kept.get("found", {})) != names:
        raise UserError(f"'{path}' is of {', '.join(kept.get('found', {}))}: {remedy}")
    return continued(start, kept), kept["found"]
