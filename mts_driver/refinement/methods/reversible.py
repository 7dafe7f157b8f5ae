"""By running the trajectory backwards: the method of this project."""

from dataclasses import dataclass

from integrators.reversible import gradient
from integrators.state import MDState
from integrators.walk import anchor_interval
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
        start, seed_or_none = problem.settled(start, seed), problem.seed_of(seed)
        if self.anchor_every is None:
            self.anchor_every = anchor_interval(
                *(start, problem.levels, problem.splitting),
                steps=problem.steps,
                seed=seed_or_none,
                **problem.dynamics,
            )
        found = gradient(
            *(start, problem.levels, problem.splitting, problem.loss),
            list(problem.parameters.values()),
            steps=problem.steps,
            snapshots=problem.snapshots,
            seed=seed_or_none,
            anchor_every=self.anchor_every,
            truncation_steps=self.truncation_steps,
            growth_bound=self.growth_bound,
            **problem.dynamics,
        )
        return Estimate(
            loss=found.loss.item(),
            gradients=dict(zip(problem.parameters, found.parameters, strict=True)),
            end=found.state,
            steps_run=problem.settle_steps + problem.steps + found.steps_back,
            told={"return_error_A": found.return_error_A, "growth": found.growth},
        )
