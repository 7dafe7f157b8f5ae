"""What all classical models share: a sum of terms, as a potential that can be differentiated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from integrators.linearized import Linearized
from integrators.state import Evaluation
from mts_driver.errors import UserError
from mts_driver.potentials.classical.terms.term import Term, differentiated, pull_through


class ClassicalPotential(nn.Module):
    """A sum of terms bound to N atoms: ``potential(positions, cell) -> Evaluation``.

    Its parameters are those of the model, in float64, named with their units. All is evaluated in
    float64 on the CPU, all replicas at once; energies are returned in float64, forces and virials
    in the precision of the positions.

    Where gradients are enabled and the positions require one, energy, forces and virial carry a
    graph to positions and parameters. Otherwise they are detached, and cost much less.
    `linearized` gives the first derivatives of forces without such a graph.

    Parameters
    ----------
    atoms : int
        N.
    numbers : sequence of int, length N, optional
        Atomic numbers, where the model is for certain elements.

    Attributes
    ----------
    terms : list of Term
        What the energy is the sum of; a model adds its own.
    """

    def __init__(self, atoms: int, numbers: Sequence[int] | None = None) -> None:
        super().__init__()
        self.atoms = atoms
        self.numbers = None if numbers is None else np.array(numbers, int)
        self.terms: list[Term] = []

    def table(self) -> dict[str, Any]:
        """All of the model as it is written to a file, with the present values."""
        raise NotImplementedError

    def energy(self, positions: Tensor, cell: Tensor) -> Tensor:
        """Energies (...,), eV, with a graph to all that requires a gradient.

        Parameters
        ----------
        positions : Tensor, shape (..., N, 3)
            Å.
        cell : Tensor, shape (3, 3) or (..., 3, 3)
            Å, rows are lattice vectors; zeros for an isolated system.

        Raises
        ------
        UserError
            If the number of atoms is another, or positions or the energy are not finite.
        """
        x, cells = self._flat(positions, cell)
        return self._finite(self._sum(x, cells)).reshape(positions.shape[:-2])

    def forward(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energies, forces and virials; shapes and errors as in `energy`."""
        x, cells = self._flat(positions, cell)
        if torch.is_grad_enabled() and positions.requires_grad:
            found = differentiated(self._sum, x, cells, graph=True)
        else:
            found = _total([term.evaluate(x.detach(), cells.detach()) for term in self.terms])
        return self._shaped(found, positions)

    def linearized(
        self, positions: Tensor, cell: Tensor, parameters: Sequence[Tensor] = ()
    ) -> Linearized:
        """Evaluate so that vectors over atoms can be pulled back through the forces.

        Parameters
        ----------
        positions, cell : Tensor
            As in `energy`.
        parameters : sequence of Tensor
            Parameters of this model, or what they were made from; each requires a gradient.

        Returns
        -------
        Linearized
            The evaluation, detached, and ``pull(along (..., N, 3))``, which may be called again.

        Raises
        ------
        UserError
            As `energy` does, or if a parameter does not require a gradient.
        """
        for k, parameter in enumerate(parameters):
            if not parameter.requires_grad:
                raise UserError(
                    f"parameters[{k}] does not require a gradient: give only those that are "
                    "trained, or call requires_grad_() on it."
                )
        x, cells = (one.detach() for one in self._flat(positions, cell))
        parts = [term.linearized(x.requires_grad_(), cells) for term in self.terms]
        found = self._shaped(_total([part.evaluation for part in parts]), positions)
        pull = pull_through(parts, x, parameters)

        def shaped(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            pulled, by_parameter = pull(along.detach().double().reshape(x.shape))
            return pulled.reshape(positions.shape).to(along), by_parameter

        return Linearized(found, shaped)

    def prepare(self) -> None:
        """Make ready for an evaluation; for models whose pairs depend on parameters."""

    def _sum(self, x: Tensor, cells: Tensor) -> Tensor:
        return torch.stack([term.energy(x, cells) for term in self.terms]).sum(0)

    def _flat(self, positions: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (R, N, 3) and cells (R, 3, 3) in float64."""
        shape = positions.shape
        if positions.ndim < 2 or shape[-2:] != (self.atoms, 3):
            raise UserError(
                f"positions have shape {tuple(shape)}, but the model is bound to {self.atoms} "
                f"atoms: give (..., {self.atoms}, 3), or make the model for these atoms."
            )
        if positions.device.type != "cpu":
            raise UserError(f"positions are on {positions.device}: classical models run on cpu.")
        self.prepare()
        x = positions.double().reshape(-1, self.atoms, 3).contiguous()
        if not bool(torch.isfinite(x).all()):
            raise UserError("positions hold a number that is not finite: use a shorter time step.")
        cells = cell.double().expand(*shape[:-2], 3, 3).reshape(-1, 3, 3).contiguous()
        return x, cells

    def _finite(self, found: Tensor) -> Tensor:
        if not bool(torch.isfinite(found).all()):
            values = {name: p.detach().tolist() for name, p in self.named_parameters()}
            raise UserError(
                "energy or virial is not finite: atoms lie upon each other or a bent molecule has "
                f"become straight, or a parameter has left its range ({values}): use a shorter "
                "time step, or smaller steps in parameters."
            )
        return found

    def _shaped(self, found: Evaluation, positions: Tensor) -> Evaluation:
        lead = positions.shape[:-2]
        return Evaluation(
            self._finite(found.energy).reshape(lead),
            found.forces.reshape(positions.shape).to(positions.dtype),
            self._finite(found.virial).reshape(*lead, 3, 3).to(positions.dtype),
        )


def _total(parts: Sequence[Evaluation]) -> Evaluation:
    if len(parts) == 1:
        return parts[0]
    return Evaluation(*(torch.stack(same).sum(0) for same in zip(*parts, strict=True)))
