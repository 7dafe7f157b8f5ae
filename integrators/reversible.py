"""Gradients of losses along a trajectory, by running the trajectory backwards.

The forward run is `integrators.engine.run`, whose noise can be made again for any step. Backwards,
the same splitting is undone operation by operation (`integrators.adjoints`) while the gradient goes
along, so that memory does not grow with length (Greener, PNAS 2025, 122, e2426058122). Any
splitting has its gradient from its data, RESPA-BAOAB with teacher and student too.

Rounding grows on the way back: by chaos, and by 1/c at each thermostat step. Every
``anchor_every`` steps the state is taken from the forward run again, and the largest distance there
is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from integrators import engine
from integrators.adjoints import Adjoint, step_back, stepped_back
from integrators.bath import Bath, Noise, counter_noise
from integrators.levels import Levels
from integrators.splitting import Splitting
from integrators.state import MDState

PILOT_STEPS = 100
RETURN_A = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far from itself a trajectory may come back, Å, where ``anchor_every`` is chosen."""
LOST_A = 0.05
"""A trajectory that comes back farther away than this has no gradient."""


class Snapshots(NamedTuple):
    """What a loss is a function of.

    Attributes
    ----------
    steps : tuple of int
        Outer steps of the run after which the states were taken.
    positions, velocities : Tensor, shape (K, ..., N, 3)
        Å, not wrapped, and Å/fs; both require a gradient.
    cell : Tensor, shape (3, 3) or (..., 3, 3)
        Å.
    masses : Tensor, shape (N,)
        eV fs²/Å².
    timestep : float
        Of an outer step, fs.
    weights : Tensor or None, shape (K, ...)
        What a state counts in averages, 1 in all; None where all count alike. They carry a gradient
        where a trajectory is reweighted instead of differentiated.
    """

    steps: tuple[int, ...]
    positions: Tensor
    velocities: Tensor
    cell: Tensor
    masses: Tensor
    timestep: float
    weights: Tensor | None = None


Loss = Callable[[Snapshots], Tensor]
"""A number that torch can differentiate by the snapshots and by parameters."""


@dataclass(frozen=True, eq=False)
class TrajectoryGradient:
    """A loss and its gradient.

    Attributes
    ----------
    loss : Tensor, shape ()
        Its value.
    parameters : tuple of Tensor
        By every parameter.
    positions, velocities : Tensor, shape (..., N, 3)
        By the state at the start (of what truncation leaves, if there is one).
    state : MDState
        At the end of the forward run.
    snapshots : Snapshots
        Detached.
    anchor_every : int
        Steps between states that were kept.
    return_error_A : float
        Largest distance of a coordinate from a kept state, on the way back.
    growth : float
        Largest norm of the gradient by the state over the largest that a snapshot added; far above
        1 where the trajectory is chaotic.
    steps_back : int
        Outer steps that were undone.
    """

    loss: Tensor
    parameters: tuple[Tensor, ...]
    positions: Tensor
    velocities: Tensor
    state: MDState
    snapshots: Snapshots
    anchor_every: int
    return_error_A: float
    growth: float
    steps_back: int


def gradient(
    state: MDState,
    levels: Levels,
    splitting: Splitting,
    loss: Loss,
    parameters: Sequence[Tensor],
    *,
    steps: int,
    snapshots: Sequence[int],
    timestep: float,
    bath: Bath | None = None,
    seed: int | None = None,
    anchor_every: int | None = None,
    truncation_steps: int | None = None,
    growth_bound: float | None = None,
) -> TrajectoryGradient:
    """Run forwards, evaluate a loss, run backwards.

    Parameters
    ----------
    state : MDState
        The start; leading dimensions are replicas, which one loss may see together.
    levels, splitting, steps, timestep, bath, seed
        As `integrators.engine.run` takes them. Potentials must be differentiable; see
        `integrators.linearized`. The cell is constant.
    loss : callable
        Of `Snapshots`.
    parameters : sequence of Tensor
        Leaves that require gradients: parameters of the potentials, or of the loss.
    snapshots : sequence of int
        Outer steps (0: the start) at which the loss sees the state, ascending.
    anchor_every : int, optional
        Steps between states that the way back starts anew from; chosen by `anchor_interval` where
        it is left out.
    truncation_steps : int, optional
        The gradient by the state is dropped so many steps before a snapshot, unless another
        snapshot comes in between. Parameters are then blamed for what they did in these steps only:
        the gradient is biased, and does not explode. Greener used 200.
    growth_bound : float, optional
        The gradient by the state, of each replica, is scaled back where its norm exceeds so many
        times the largest that a snapshot added. This biases it, too.

    Raises
    ------
    ValueError
        If an argument is not allowed, a force was clipped, the loss or its gradient is not finite,
        a parameter touches neither forces nor loss, or the trajectory does not come back.
    """
    _check(steps, snapshots, parameters, anchor_every, truncation_steps, growth_bound)
    run = _Run(levels, splitting, tuple(parameters), timestep, bath, seed)
    if anchor_every is None:
        anchor_every = anchor_interval(
            state, levels, splitting, steps=steps, timestep=timestep, bath=bath, seed=seed
        )
    kept = {0, *range(0, steps, anchor_every), *snapshots}
    last, states = run.forward(state, steps, kept)
    value, seen, added, direct = _loss(loss, states, snapshots, parameters, timestep)

    adjoint = Adjoint(torch.zeros_like(state.positions), torch.zeros_like(state.positions), direct)
    back, error, injected, growth, age, done = last, 0.0, 0.0, 0.0, None, 0
    # a loss of parameters alone needs no way back
    used = [n for n, parts in added.items() if any(bool(part.any()) for part in parts)]
    for n in range(max(used, default=-1), -1, -1):
        if n in states:
            if age is not None:
                adjoint = adjoint.pulled()
                error = max(error, _distance(back, states[n], n))
            back = states[n]
        if n in added:
            adjoint = adjoint.plus(*added[n])
            injected, age = max(injected, _norm(adjoint, timestep).max().item()), 0
        if n == 0:
            break
        if age is None or age == truncation_steps:
            adjoint, age = adjoint.pulled().times(torch.zeros(())), None
            continue
        back, adjoint = run.back(back, adjoint)
        age, done = age + 1, done + 1
        norm = _norm(adjoint, timestep)
        if not bool(norm.isfinite().all()):
            raise ValueError(
                f"the gradient is not finite {max(snapshots) - n + 1} steps before the last "
                "snapshot: shorten the run, or give truncation_steps or growth_bound"
            )
        growth = max(growth, norm.max().item() / injected if injected else 0.0)
        if growth_bound is not None and bool((norm > growth_bound * injected).any()):
            most = growth_bound * injected
            adjoint = adjoint.pulled().times(most / norm.clamp_min(most))
    adjoint = adjoint.pulled()
    _check_touched(adjoint.parameters, injected)
    return TrajectoryGradient(
        loss=value,
        parameters=adjoint.parameters,
        positions=adjoint.positions,
        velocities=adjoint.velocities,
        state=last,
        snapshots=seen,
        anchor_every=anchor_every,
        return_error_A=error,
        growth=growth,
        steps_back=done,
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
        As of `gradient`.
    tolerance_A : float, optional
        How far a coordinate may be from where it was (1e-9 in double, 1e-4 in single precision).
    """
    tolerance_A = RETURN_A[state.positions.dtype] if tolerance_A is None else tolerance_A
    run = _Run(levels, splitting, (), timestep, bath, seed)
    pilot = min(steps, PILOT_STEPS)
    if pilot < 2:
        return 1
    middle = pilot // 2
    back, states = run.forward(state, pilot, {0, middle})
    errors = []
    for n in range(pilot - 1, -1, -1):
        back = run.state_back(back)
        if n in states:
            errors.append(_distance(back, states[n], n))
    smallest = torch.finfo(state.positions.dtype).tiny
    halfway, whole = (max(error, smallest) for error in errors)
    rate = math.log(whole / halfway) / middle
    longer = math.log(tolerance_A / whole)
    if rate <= 0:
        return steps if longer >= 0 else 1
    return min(max(pilot + math.floor(longer / rate), 1), max(steps, 1))


@dataclass(frozen=True, eq=False)
class _Run:
    """What the way there and the way back share."""

    levels: Levels
    splitting: Splitting
    parameters: tuple[Tensor, ...]
    timestep: float
    bath: Bath | None
    seed: int | None

    @property
    def noise(self) -> Noise | None:
        return None if self.seed is None else counter_noise(self.seed)

    @torch.no_grad()
    def forward(
        self, state: MDState, steps: int, kept: set[int]
    ) -> tuple[MDState, dict[int, MDState]]:
        """Run, and keep the states after some steps, without their forces."""
        first, state = state.step, replace(state, evaluations={})
        states = {0: state}

        def keep(now: MDState) -> None:
            if now.step - first in kept:
                states[now.step - first] = replace(now, evaluations={})

        last = engine.run(
            state,
            self.levels,
            self.splitting,
            steps=steps,
            timestep=self.timestep,
            bath=self.bath,
            seed=self.seed,
            on_step=keep,
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
        return stepped_back(
            state,
            self.levels,
            self.splitting.operations,
            timestep=self.timestep,
            bath=self.bath,
            noise=self.noise,
        )


def _loss(
    loss: Loss,
    states: dict[int, MDState],
    snapshots: Sequence[int],
    parameters: Sequence[Tensor],
    timestep: float,
) -> tuple[Tensor, Snapshots, dict[int, tuple[Tensor, Tensor]], tuple[Tensor, ...]]:
    """Value, what it saw, its gradient by every snapshot, and by parameters directly."""
    some = states[0]
    x = torch.stack([states[n].positions for n in snapshots]).requires_grad_()
    v = torch.stack([states[n].velocities for n in snapshots]).requires_grad_()
    seen = Snapshots(tuple(snapshots), x, v, some.cell, some.masses, timestep)
    with torch.enable_grad():
        value = loss(seen)
    if value.ndim or not bool(value.isfinite()):
        raise ValueError(f"the loss is {value.detach()}; it must be one finite number")
    if not value.requires_grad:
        raise ValueError("the loss depends neither on the snapshots nor on the parameters")
    found = torch.autograd.grad(value, (x, v, *parameters), allow_unused=True)
    by_x, by_v, *direct = (
        torch.zeros_like(of) if g is None else g
        for g, of in zip(found, (x, v, *parameters), strict=True)
    )
    added = {n: (by_x[k], by_v[k]) for k, n in enumerate(snapshots)}
    seen = seen._replace(positions=x.detach(), velocities=v.detach())
    return value.detach(), seen, added, tuple(direct)


def _norm(adjoint: Adjoint, timestep: float) -> Tensor:
    """Norm of the gradient by the state of each replica, (..., 1, 1), in one over Å."""
    by_x, by_v = adjoint.positions, adjoint.velocities / timestep
    return (by_x.square() + by_v.square()).sum((-2, -1), keepdim=True).sqrt()


def _distance(back: MDState, kept: MDState, step: int) -> float:
    """Largest distance of a coordinate from where it was, Å."""
    distance = (back.positions - kept.positions).abs().max().item()
    if not distance < LOST_A:
        raise ValueError(
            f"the trajectory came back to step {step} {distance:.2g} Å away from itself: give a "
            "smaller anchor_every, double precision, or less friction"
        )
    return distance


def _check(
    steps: int,
    snapshots: Sequence[int],
    parameters: Sequence[Tensor],
    anchor_every: int | None,
    truncation_steps: int | None,
    growth_bound: float | None,
) -> None:
    if not snapshots or list(snapshots) != sorted(set(snapshots)):
        raise ValueError(f"snapshots are {list(snapshots)}; give ascending steps, at least one")
    if snapshots[0] < 0 or snapshots[-1] > steps:
        raise ValueError(
            f"snapshots go from {snapshots[0]} to {snapshots[-1]}; the run has the steps 0 to "
            f"{steps}"
        )
    for name, count in (("anchor_every", anchor_every), ("truncation_steps", truncation_steps)):
        if count is not None and count < 1:
            raise ValueError(f"{name} is {count}; it must be at least 1")
    if growth_bound is not None and not growth_bound > 0:
        raise ValueError(f"growth_bound is {growth_bound}; it must be positive")
    for k, parameter in enumerate(parameters):
        if not (parameter.requires_grad and parameter.is_leaf):
            raise ValueError(f"parameter {k} is not a leaf that requires a gradient")


def _check_touched(gradients: Sequence[Tensor], injected: float) -> None:
    """Refuse parameters that nothing depends on."""
    for k, found in enumerate(gradients):
        if not bool(found.isfinite().all()):
            raise ValueError(f"the gradient by parameter {k} is not finite")
        if injected and not bool(found.any()):
            raise ValueError(
                f"parameter {k} touches neither the forces nor the loss: its gradient is zero; "
                "leave it out"
            )
