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
from mts_driver.refinement.observables.arguments import Energy
from mts_driver.refinement.observables.energies import energy_slopes
from mts_driver.refinement.problem import Estimate, Problem

LEAST_SHARE = 0.9


@dataclass
class Reweighting:
    """Gradients by reweighting; a trajectory serves as long as its states keep their weights.

    Attributes
    ----------
    least_share : float
        Effective number of states over their number, below which a trajectory is run anew.
    energy : callable or None
        Potential energy with a graph to the parameters; None: a method of the potential.
    """

    least_share: float = LEAST_SHARE
    energy: Energy | None = None
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
        energy = self._energy(problem)
        # a leaf: of many states, only one at a time keeps a graph through the model
        now = (energies.clone() if again else _energies(energy, seen)).requires_grad_()
        weights = _weights(problem, now, energies)
        loss = problem.loss(seen._replace(weights=weights))
        found = dict(problem.parameters)
        by_energies, *direct = torch.autograd.grad(loss, (now, *found.values()), allow_unused=True)
        for name, total in zip(found, direct, strict=True):
            found[name] = torch.zeros_like(found[name]) if total is None else total
        parameters = list(problem.parameters.values())
        for x, by_energy in zip(seen.positions, by_energies, strict=True):
            parts = energy_slopes(energy, x, seen.cell, parameters, by_energy)
            for name, part in zip(found, parts, strict=True):
                found[name] = found[name] + part
        for name, total in found.items():
            if not bool(total.any()):
                raise ValueError(f"{name} touches neither energies nor the loss; leave it out")
        return Estimate(
            loss=loss.item(),
            gradients=found,
            end=last,
            steps_run=steps_run,
            seen=seen._replace(weights=weights.detach()),
            told={"effective_share": _effective(weights)},
        )

    @torch.no_grad()
    def _sample(
        self, problem: Problem, start: MDState, seed: int
    ) -> tuple[Snapshots, Tensor, MDState]:
        energy, start = self._energy(problem), problem.settled(start, seed)
        seen, last = problem.trajectory(start, seed)
        return seen, _energies(energy, seen), last

    @torch.no_grad()
    def _share(self, problem: Problem) -> float:
        assert self._kept is not None
        seen, energies, _ = self._kept
        now = _energies(self._energy(problem), seen)
        return _effective(_weights(problem, now, energies))

    def _energy(self, problem: Problem) -> Energy:
        if problem.bath is None:
            raise UserError("reweighting needs a temperature: give a bath, or another method.")
        (potential, _), *others = problem.levels.parts(problem.levels.names[-1])
        energy = self.energy or getattr(potential, "energy", None)
        if others or problem.levels.names != (FAST,) or energy is None:
            raise UserError(
                "reweighting needs one potential with a method energy(positions, cell): two levels "
                "sample neither teacher nor student to rounding; use the reversible method."
            )
        return energy


@torch.no_grad()
def _energies(energy: Energy, seen: Snapshots) -> Tensor:
    """Potential energies (K, ...), eV, at the present parameters."""
    return torch.stack([energy(x, seen.cell) for x in seen.positions])


def _weights(problem: Problem, now: Tensor, energies: Tensor) -> Tensor:
    assert problem.bath is not None
    exponents = -(now - energies) / problem.bath.kT
    return torch.softmax(exponents.flatten(), 0).view_as(exponents)


def _effective(weights: Tensor) -> float:
    """exp(entropy) of the weights over their number."""
    w = weights.detach().flatten()
    return torch.exp(-(w * w.clamp_min(1e-300).log()).sum()).item() / w.numel()
