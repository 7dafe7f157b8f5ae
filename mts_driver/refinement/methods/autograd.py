"""By a graph of the whole trajectory: exact, and its memory grows with the length."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from integrators import engine
from integrators.reversible import Snapshots
from integrators.state import MDState
from mts_driver.refinement.problem import Estimate, Problem


def through_autograd(problem: Problem, start: MDState, seed: int) -> Estimate:
    """Let torch differentiate every operation of every step; see `Method`."""
    with torch.no_grad():
        start = problem.settled(start, seed)
    # positions that require a gradient make potentials keep their graph
    state = replace(start, positions=start.positions.clone().requires_grad_(), evaluations={})
    seen, last = trajectory(problem, state, seed)
    loss = problem.loss(seen)
    found = torch.autograd.grad(loss, list(problem.parameters.values()))
    return Estimate(
        loss=loss.item(),
        gradients=dict(zip(problem.parameters, found, strict=True)),
        end=without_graph(last),
        steps_run=problem.settle_steps + problem.steps,
    )


def trajectory(problem: Problem, state: MDState, seed: int) -> tuple[Snapshots, MDState]:
    """Run, and return the states that the loss sees, and the last one."""
    first, wanted = state.step, set(problem.snapshots)
    kept = {0: state}

    def keep(now: MDState) -> None:
        if now.step - first in wanted:
            kept[now.step - first] = now

    last = engine.run(
        *(state, problem.levels, problem.splitting),
        steps=problem.steps,
        seed=problem.seed_of(seed),
        on_step=keep,
        **problem.dynamics,
    )
    return snapshots_of([kept[n] for n in problem.snapshots], problem), last


def snapshots_of(states: Sequence[MDState], problem: Problem) -> Snapshots:
    """Return states as a loss takes them."""
    return Snapshots(
        problem.snapshots,
        torch.stack([state.positions for state in states]),
        torch.stack([state.velocities for state in states]),
        states[0].cell,
        states[0].masses,
        problem.timestep_fs,
    )


def without_graph(state: MDState) -> MDState:
    """Return positions, velocities and counters only."""
    return replace(
        state,
        positions=state.positions.detach(),
        velocities=state.velocities.detach(),
        heat=state.heat.detach(),
        max_force_difference=state.max_force_difference.detach(),
        evaluations={},
    )
