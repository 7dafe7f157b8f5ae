"""A trajectory walked forwards and back, and how far back it may be walked at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from integrators import engine
from integrators.adjoints import Adjoint, step_back, stepped_back
from integrators.bath import Bath
from integrators.levels import Levels
from integrators.noise import CounterNoise, Noise
from integrators.splitting import Splitting
from integrators.state import MDState

PILOT_STEPS = 100
RETURN_A = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far from itself a trajectory may come back, Å, where ``anchor_every`` is chosen."""
LOST_A = 0.05
"""A trajectory that comes back farther away than this has no gradient."""


def run_and_keep(
    state: MDState, levels: Levels, splitting: Splitting, kept: Collection[int], **how: Any
) -> tuple[MDState, dict[int, MDState]]:
    """Run; return the last state, and by their steps the first one and those after ``kept`` steps.

    Forces that the start brings may be those of other parameters, and are forgotten; kept states
    have none. The rest is as of `integrators.engine.run`.
    """
    first, state, wanted = state.step, replace(state, evaluations={}), set(kept)
    states = {0: state}

    def keep(now: MDState) -> None:
        if now.step - first in wanted:
            states[now.step - first] = replace(now, evaluations={})

    return engine.run(state, levels, splitting, on_step=keep, **how), states


@dataclass(frozen=True, eq=False)
class Walk:
    """What the way there and the way back share; see `integrators.reversible.gradient`."""

    levels: Levels
    splitting: Splitting
    parameters: Sequence[Tensor]
    timestep: float
    bath: Bath | None
    seed: int | None

    def __post_init__(self) -> None:
        if self.bath is not None and self.bath.coloured is not None:
            raise ValueError(
                "steps with coloured noise are not walked back: give a bath of white noise"
            )

    @property
    def noise(self) -> Noise | None:
        """The same numbers on both ways."""
        return None if self.seed is None else CounterNoise(self.seed)

    @torch.no_grad()
    def forward(
        self, state: MDState, steps: int, kept: set[int]
    ) -> tuple[MDState, dict[int, MDState]]:
        """Run; return the last state, and those after ``kept`` steps, without their forces.

        Raises
        ------
        ValueError
            If a force was clipped, or the trajectory blew up.
        """
        last, states = run_and_keep(
            *(state, self.levels, self.splitting, kept),
            steps=steps,
            timestep=self.timestep,
            bath=self.bath,
            seed=self.seed,
        )
        clipped = int(last.clip_events - state.clip_events)
        if clipped:
            raise ValueError(
                f"{clipped} forces were clipped: a gradient through a clip that acts is not that "
                "of the trajectory. Use clip=None, or a student that is nearer to its teacher"
            )
        if not bool(last.positions.isfinite().all()):
            raise ValueError("positions are not finite: the trajectory blew up; shorten the step")
        return last, states

    @torch.no_grad()
    def back(self, state: MDState, adjoint: Adjoint) -> tuple[MDState, Adjoint]:
        """Undo a step, with the gradient."""
        return step_back(
            state,
            adjoint,
            self.levels,
            self.splitting.operations,
            self.parameters,
            timestep=self.timestep,
            bath=self.bath,
            noise=self.noise,
        )

    @torch.no_grad()
    def state_back(self, state: MDState) -> MDState:
        """Undo a step."""
        return stepped_back(
            state,
            self.levels,
            self.splitting.operations,
            timestep=self.timestep,
            bath=self.bath,
            noise=self.noise,
        )


def anchor_interval(
    state: MDState,
    levels: Levels,
    splitting: Splitting,
    *,
    steps: int,
    timestep: float,
    bath: Bath | None = None,
    seed: int | None = None,
    tolerance_A: float | None = None,
) -> int:
    """Return how many steps a trajectory may be walked back before it has to start anew.

    At most 100 steps are run forwards and backwards; the error grows exponentially, and is
    extrapolated from the middle and the end of the way.

    Parameters
    ----------
    state, levels, splitting, steps, timestep, bath, seed
        As of `integrators.reversible.gradient`.
    tolerance_A : float, optional
        How far a coordinate may be from where it was (1e-9 in double, 1e-4 in single precision).
    """
    tolerance_A = RETURN_A[state.positions.dtype] if tolerance_A is None else tolerance_A
    run = Walk(levels, splitting, (), timestep, bath, seed)
    pilot = min(steps, PILOT_STEPS)
    if pilot < 2:
        return 1
    middle = pilot // 2
    back, states = run.forward(state, pilot, {0, middle})
    errors = []
    for n in range(pilot - 1, -1, -1):
        back = run.state_back(back)
        if n in states:
            errors.append(distance_A(back, states[n], n))
    smallest = torch.finfo(state.positions.dtype).tiny
    halfway, whole = (max(error, smallest) for error in errors)
    rate = math.log(whole / halfway) / middle
    longer = math.log(tolerance_A / whole)
    if rate <= 0:
        return steps if longer >= 0 else 1
    return min(max(pilot + math.floor(longer / rate), 1), max(steps, 1))


def distance_A(back: MDState, kept: MDState, step: int) -> float:
    """Largest distance of a coordinate from where it was, Å."""
    distance = (back.positions - kept.positions).abs().max().item()
    if not distance < LOST_A:
        raise ValueError(
            f"the trajectory came back to step {step} {distance:.2g} Å away from itself: give a "
            "smaller anchor_every, double precision, or less friction"
        )
    return distance
