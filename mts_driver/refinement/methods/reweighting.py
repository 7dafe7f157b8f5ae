"""By reweighting an ensemble: DiffTRe of Thaler and Zavadlav, Nat. Commun. 2021, 12, 6884.

States of a trajectory count ``w_k ∝ exp(−(U_θ(x_k) − U_θ₀(x_k))/kT)`` in averages at parameters θ
near those, θ₀, that it was run with. No gradient goes through time: memory and chaos are no
concern, but only averages over an ensemble can be fitted, not what takes time, and where few states
keep a weight the averages are those of few states.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from integrators.splitting import FAST
from integrators.state import MDState
from mts_driver.errors import UserError
from mts_driver.refinement.problem import Estimate, Problem


@dataclass
class Reweighting:
    """Gradients by reweighting; a trajectory serves as long as its states keep their weights.

    Attributes
    ----------
    least_share : float
        Effective number of states over their number, below which a trajectory is run anew.
    """

    least_share: float = 0.9
    _kept: tuple[Snapshots, Tensor, MDState] | None = field(default=None, repr=False)

    def __call__(self, problem: Problem, start: MDState, seed: int) -> Estimate:
        """See `Method`."""
        steps_run, again = 0, self._kept is None
        if self._kept is not None:
            again = self._share(problem) < self.least_share
        if again:
            steps_run = problem.settle_steps + problem.steps
            self._kept = self._sample(problem, start, seed)
        assert self._kept is not None
        seen, energies, last = self._kept
        weights = _weights(problem, seen, energies)
        loss = problem.loss(seen._replace(weights=weights))
        found = torch.autograd.grad(loss, list(problem.parameters.values()))
        return Estimate(
            loss=loss.item(),
            gradients=dict(zip(problem.parameters, found, strict=True)),
            end=last,
            steps_run=steps_run,
            told={"effective_share": _effective(weights)},
        )

    @torch.no_grad()
    def _sample(
        self, problem: Problem, start: MDState, seed: int
    ) -> tuple[Snapshots, Tensor, MDState]:
        start = problem.settled(start, seed)
        seen, last = problem.trajectory(start, seed)
        return seen, _energies(problem, seen), last

    @torch.no_grad()
    def _share(self, problem: Problem) -> float:
        assert self._kept is not None
        seen, energies, _ = self._kept
        return _effective(_weights(problem, seen, energies))


def _energies(problem: Problem, seen: Snapshots) -> Tensor:
    """Potential energies (K, ...), eV, at the present parameters."""
    (potential, _), *others = problem.levels.parts(problem.levels.names[-1])
    if others or problem.levels.names != (FAST,) or not hasattr(potential, "energy"):
        raise UserError(
            "reweighting needs one potential with a method energy(positions, cell): two levels "
            "sample neither teacher nor student to rounding; use the reversible method."
        )
    energies: Tensor = potential.energy(seen.positions, seen.cell)
    return energies


def _weights(problem: Problem, seen: Snapshots, energies: Tensor) -> Tensor:
    if problem.bath is None:
        raise UserError("reweighting needs a temperature: give a bath, or another method.")
    exponents = -(_energies(problem, seen) - energies) / problem.bath.kT
    return torch.softmax(exponents.flatten(), 0).view_as(exponents)


def _effective(weights: Tensor) -> float:
    """exp(entropy) of the weights over their number."""
    w = weights.detach().flatten()
    return torch.exp(-(w * w.clamp_min(1e-300).log()).sum()).item() / w.numel()
