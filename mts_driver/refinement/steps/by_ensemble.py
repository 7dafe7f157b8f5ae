"""Updates whose length is by how much they change the ensemble: the natural gradient.

A network has directions among its weights that change all energies and hardly an average, and
others, a thousand times softer, that averages depend on. A gradient by the weights points along the
former. Here directions are scaled to change the energies of the states of a trajectory by kT, root
mean square, so that a step follows what averages tell: this is the metric of Fisher and Amari
(Neural Comput. 1998, 10, 251), which of a Boltzmann ensemble is the covariance of energies. The
length of a step is the root of twice the Kullback-Leibler divergence of the ensemble after it.
"""

from typing import Any

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Energy
from mts_driver.refinement.observables.energies import energy_slopes
from mts_driver.refinement.problem import Estimate, Problem

STATES_A_DIRECTION = 5
"""Fewer say too little about what a direction does to other states of the ensemble."""
MOST_STATES, MOST_NUMBERS = 1000, 50_000_000
"""Of all energies' gradients, which are in memory together."""
_TINY = 1e-10


class ByEnsemble:
    """Steps along the natural gradient, of the length of the rate, in kT.

    Parameters
    ----------
    energy : callable
        Potential energy with a graph to the parameters.
    """

    def __init__(self, energy: Energy) -> None:
        self._energy = energy

    def __call__(
        self, problem: Problem, found: Estimate, rate: float
    ) -> tuple[dict[str, Tensor], float]:
        """See `Steps`; the length of the gradient is that by energies in kT."""
        if problem.bath is None:
            raise UserError("metric=ensemble needs a temperature: give a bath, or another metric.")
        changes = self._changes(problem, found.seen) / problem.bath.kT
        states = len(changes)
        # principal changes of energies; directions among parameters follow from them
        values, vectors = torch.linalg.eigh(changes @ changes.T / states)
        count = min(int((values > _TINY * values[-1]).sum()), max(1, states // STATES_A_DIRECTION))
        along = vectors[:, -count:] / (states**0.5 * values[-count:])
        whole = torch.cat([g.double().flatten() for g in found.gradients.values()])
        slopes = along.T @ (changes @ whole)
        norm = float(slopes.norm())
        step = -(rate / (norm or 1.0)) * (changes.T @ (along @ slopes))
        parts = step.split([g.numel() for g in found.gradients.values()])
        moves = {
            n: s.view_as(found.gradients[n]) for s, n in zip(parts, found.gradients, strict=True)
        }
        return moves, norm

    def _changes(self, problem: Problem, seen: Snapshots) -> Tensor:
        """Energies' gradients by all parameters, less their mean, (states, numbers), eV."""
        parameters = list(problem.parameters.values())
        most = min(MOST_STATES, MOST_NUMBERS // sum(p.numel() for p in parameters))
        thinned = -(-seen.positions.shape[:-2].numel() // max(most, 1))
        x = seen.positions[::thinned].flatten(0, -3)
        cells = seen.cell.expand(*seen.positions[::thinned].shape[:-2], 3, 3).reshape(-1, 3, 3)
        one = x.new_ones(())
        found = torch.stack(
            [
                torch.cat([part.flatten() for part in slopes])
                for slopes in (
                    energy_slopes(self._energy, state, cell, parameters, one)
                    for state, cell in zip(x, cells, strict=True)
                )
            ]
        ).double()
        weights = found.new_full((len(found), 1), 1.0 / len(found))
        if seen.weights is not None:
            weights = seen.weights[::thinned].detach().double().reshape(-1, 1)
            weights = weights / weights.sum()
        return (found - (weights * found).sum(0)) * (weights * len(found)).sqrt()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a step follows from its own trajectory."""
        return {}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Go on."""
