"""By differences of losses: two trajectories a number, all with the same noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from integrators.state import MDState
from mts_driver.refinement.problem import Estimate, Problem


@dataclass(frozen=True)
class Differences:
    """Central differences.

    Attributes
    ----------
    relative_step : float
        Of every number, or of 1 where it is 0.
    """

    relative_step: float = 1e-5

    @torch.no_grad()
    def __call__(self, problem: Problem, start: MDState, seed: int) -> Estimate:
        """See `Method`."""
        start = problem.settled(start, seed)
        seen, last = problem.trajectory(start, seed)
        gradients, runs = {}, 1
        for name, parameter in problem.parameters.items():
            gradients[name] = torch.empty_like(parameter)
            for k in range(parameter.numel()):
                gradients[name].view(-1)[k] = self._slope(
                    problem, start, seed, parameter.view(-1)[k : k + 1]
                )
                runs += 2
        return Estimate(
            loss=problem.loss(seen).item(),
            gradients=gradients,
            end=last,
            steps_run=problem.settle_steps + runs * problem.steps,
            seen=seen,
        )

    def _slope(self, problem: Problem, start: MDState, seed: int, number: Tensor) -> float:
        before = number.clone()
        h = self.relative_step * (abs(before.item()) or 1.0)
        losses = []
        for moved in (before + h, before - h):
            number.copy_(moved)
            losses.append(problem.loss(problem.trajectory(start, seed)[0]).item())
        number.copy_(before)
        return (losses[0] - losses[1]) / (2.0 * h)
