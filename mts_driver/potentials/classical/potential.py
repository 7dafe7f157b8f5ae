"""A classical force field as a potential."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from integrators.linearized import Linearized
from integrators.state import Evaluation
from mts_driver.errors import UserError
from mts_driver.potentials.classical.terms import Found, Term, found_at


class ClassicalPotential(nn.Module):
    """Sums of terms; ``potential(positions, cell) -> Evaluation``.

    Forces carry a graph where gradients are on and positions require one; otherwise nothing does.

    Parameters
    ----------
    numbers : sequence of int, length N
        Atomic numbers of the atoms that it is bound to.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        self.numbers = np.array(numbers, np.int64)

    def terms(self, x: Tensor, cells: Tensor) -> list[Term]:
        """Return the terms for positions (R, N, 3) in cells (R, 3, 3), Å."""
        raise NotImplementedError

    def energy(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Return energies, eV, shape (...), with a graph to positions, cell and parameters."""
        x, cells, leading = self._batch(positions, cell)
        found = x.new_zeros(len(x))
        for term in self.terms(x, cells):
            found = found.index_add(0, term.groups.replica, term.of(x.flatten(0, 1)))
        return found.view(leading)

    def forward(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Return energies (...), forces (..., N, 3) and virials (..., 3, 3)."""
        if torch.is_grad_enabled() and positions.requires_grad:
            return self._with_graph(positions, cell)
        return self._evaluated(positions, cell, keep=False)[0]

    def linearized(
        self, positions: Tensor, cell: Tensor, parameters: Sequence[Tensor]
    ) -> Linearized:
        """Evaluate so that forces can be pulled back; see `integrators.linearized`."""
        evaluation, parts = self._evaluated(positions, cell, keep=True)

        def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            u = along.detach().reshape(-1, 3)
            by_x = torch.zeros_like(u)
            by_p: list[Tensor | None] = [None] * len(parameters)
            for term, found in parts:
                by_v, more = found.pull(term.groups.directions(u), parameters)
                # forces are minus slopes
                by_x -= term.groups.to_atoms(by_v, u)
                for k, one in enumerate(more):
                    if one is not None:
                        before = by_p[k]
                        by_p[k] = -one if before is None else before - one
            return by_x.view_as(along), tuple(by_p)

        return Linearized(evaluation, pull)

    def _evaluated(
        self, positions: Tensor, cell: Tensor, *, keep: bool
    ) -> tuple[Evaluation, list[tuple[Term, Found]]]:
        x, cells, leading = self._batch(positions.detach(), cell.detach())
        flat, replicas = x.flatten(0, 1), len(x)
        energies, forces = x.new_zeros(replicas), torch.zeros_like(flat)
        virials, parts = x.new_zeros(replicas, 3, 3), []
        # mixed parameters and charges that balance others carry a graph to what they are made of
        with torch.set_grad_enabled(keep):
            terms = self.terms(x, cells)
        for term in terms:
            found = found_at(term, flat, keep=keep)
            energies.index_add_(0, term.groups.replica, found.energies)
            forces -= term.groups.to_atoms(found.by_vectors, flat)
            virials += term.groups.virials(found.vectors, found.by_vectors, replicas)
            parts.append((term, found))
        evaluation = Evaluation(
            energies.view(leading),
            forces.view_as(positions),
            virials.view(*leading, 3, 3),
        )
        return evaluation, parts

    def _with_graph(self, positions: Tensor, cell: Tensor) -> Evaluation:
        strain = torch.zeros(*positions.shape[:-2], 3, 3).to(positions).requires_grad_()
        unity = torch.eye(3).to(positions) + strain
        energy = self.energy(positions @ unity, cell @ unity)
        slope, by_strain = torch.autograd.grad(energy.sum(), (positions, strain), create_graph=True)
        return Evaluation(energy, -slope, -by_strain)

    def _batch(self, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Positions (R, N, 3), cells (R, 3, 3) and the leading dimensions."""
        if positions.shape[-2:] != (len(self.numbers), 3):
            raise UserError(
                f"positions have shape {tuple(positions.shape)}, but the potential is bound to "
                f"{len(self.numbers)} atoms: load it for the atoms of this structure."
            )
        leading = positions.shape[:-2]
        cells = cell.to(positions).expand(*leading, 3, 3).reshape(-1, 3, 3)
        return positions.reshape(-1, *positions.shape[-2:]), cells, leading
