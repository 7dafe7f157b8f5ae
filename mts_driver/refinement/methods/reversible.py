"""By running the trajectory backwards: the method of this project."""

from dataclasses import dataclass

from integrators.reversible import gradient
from integrators.state import MDState
from mts_driver.refinement.problem import Estimate, Problem


@dataclass
class Reversible:
    """Gradients by `integrators.reversible.gradient`.

    Attributes
    ----------
    truncation_steps, growth_bound
        Of `gradient`; both bias it, and keep chaos out of it.
    anchor_every : int or None
        Found at the first estimate, and kept, where it is None.
    """

    truncation_steps: int | None = None
    growth_bound: float | None = None
    anchor_every: int | None = None

    def __call__(self, problem: Problem, start: MDState, seed: int) -> Estimate:
        """See `Method`."""
        found = gradient(
            *(problem.settled(start, seed), problem.levels, problem.splitting, problem.loss),
            list(problem.parameters.values()),
            steps=problem.steps,
            snapshots=problem.snapshots,
            seed=problem.seed_of(seed),
            anchor_every=self.anchor_every,
            truncation_steps=self.truncation_steps,
            growth_bound=self.growth_bound,
            **problem.dynamics,
        )
        self.anchor_every = found.anchor_every
        return Estimate(
            loss=found.loss.item(),
            gradients=dict(zip(problem.parameters, found.parameters, strict=True)),
            end=found.state,
            steps_run=problem.settle_steps + problem.steps + found.steps_back,
            seen=found.snapshots,
            told={"return_error_A": found.return_error_A, "growth": found.growth},
        )
