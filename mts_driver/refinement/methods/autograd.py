"""By a graph of the whole trajectory: exact, and its memory grows with the length."""

from dataclasses import replace

import torch

from integrators.state import MDState
from mts_driver.refinement.problem import Estimate, Problem


def through_autograd(problem: Problem, start: MDState, seed: int) -> Estimate:
    """Let torch differentiate every operation of every step; see `Method`."""
    with torch.no_grad():
        start = problem.settled(start, seed)
    # positions that require a gradient make potentials keep their graph
    state = replace(start, positions=start.positions.clone().requires_grad_())
    seen, last = problem.trajectory(state, seed)
    loss = problem.loss(seen)
    found = torch.autograd.grad(loss, list(problem.parameters.values()))
    return Estimate(
        loss=loss.item(),
        gradients=dict(zip(problem.parameters, found, strict=True)),
        end=without_graph(last),
        steps_run=problem.settle_steps + problem.steps,
        seen=seen._replace(positions=seen.positions.detach(), velocities=seen.velocities.detach()),
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
