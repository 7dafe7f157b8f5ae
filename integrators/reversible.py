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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from integrators.adjoints import Adjoint
from integrators.bath import Bath
from integrators.levels import Levels
from integrators.splitting import Splitting
from integrators.state import MDState
from integrators.walk import Walk, anchor_interval, distance_A


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

    @classmethod
    def of(cls, states: Mapping[int, MDState], steps: Sequence[int], timestep: float) -> Snapshots:
        """Return the states after some steps, all counting alike."""
        chosen = [states[n] for n in steps]
        return cls(
            tuple(steps),
            torch.stack([state.positions for state in chosen]),
            torch.stack([state.velocities for state in chosen]),
            chosen[0].cell,
            chosen[0].masses,
            timestep,
        )


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
    run = Walk(levels, splitting, tuple(parameters), timestep, bath, seed)
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
                error = max(error, distance_A(back, states[n], n))
            back = states[n]
        if n in added:
            adjoint, age = adjoint.plus(*added[n]), 0
            injected = max(injected, _norm(*added[n], timestep).max().item())
        if n == 0:
            break
        if age is None or age == truncation_steps:
            adjoint, age = adjoint.pulled().times(torch.zeros(())), None
            continue
        back, adjoint = run.back(back, adjoint)
        age, done = age + 1, done + 1
        norm = _norm(adjoint.positions, adjoint.velocities, timestep)
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


def _loss(
    loss: Loss,
    states: dict[int, MDState],
    snapshots: Sequence[int],
    parameters: Sequence[Tensor],
    timestep: float,
) -> tuple[Tensor, Snapshots, dict[int, tuple[Tensor, Tensor]], tuple[Tensor, ...]]:
    """Value, what it saw, its gradient by every snapshot, and by parameters directly."""
    seen = Snapshots.of(states, snapshots, timestep)
    x, v = seen.positions.requires_grad_(), seen.velocities.requires_grad_()
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


def _norm(by_x: Tensor, by_v: Tensor, timestep: float) -> Tensor:
    """Norm of the gradient by the state of each replica, (..., 1, 1), in one over Å."""
    return (by_x.square() + (by_v / timestep).square()).sum((-2, -1), keepdim=True).sqrt()


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
