"""Harmonic wells and springs, whose averages and periods are known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.potentials.classical.forms import harmonic
from mts_driver.potentials.classical.model import ClassicalPotential
from mts_driver.potentials.classical.parameters import check_names, parameter
from mts_driver.potentials.classical.terms.bonds import Bonds
from mts_driver.potentials.classical.terms.term import DifferentiatedTerm, InternalTerm


class HarmonicWells(ClassicalPotential):
    """½ k Σ |x_a − c_a|², each atom in a well of its own; without regard to a cell.

    The virial is that of centers that stay in place when space is strained.

    Parameters
    ----------
    centers_A : array, shape (N, 3)
        Where the wells are.
    well_k_eV_A2 : float
        The parameter k.

    Raises
    ------
    UserError
        If k is not positive, or the centers are no such array.
    """

    def __init__(self, centers_A: Any, *, well_k_eV_A2: float) -> None:
        try:
            centers = torch.tensor(np.asarray(centers_A, float))
        except (TypeError, ValueError) as error:
            raise UserError(f"centers_A cannot be read ({error}): give N x 3 numbers.") from error
        if centers.ndim != 2 or centers.shape[1] != 3 or not bool(torch.isfinite(centers).all()):
            raise UserError(f"centers_A has the shape {tuple(centers.shape)}: give (N, 3), finite.")
        super().__init__(len(centers))
        self.well_k_eV_A2 = parameter("well_k_eV_A2", well_k_eV_A2)
        self._centers = centers
        self.terms.append(DifferentiatedTerm(self._wells))

    def _wells(self, x: Tensor, cells: Tensor) -> Tensor:
        return 0.5 * self.well_k_eV_A2 * (x - self._centers).square().sum((-2, -1))

    def table(self) -> dict[str, Any]:
        """All of the model as it is written to a file, with the present values."""
        return {
            "form": "harmonic-wells",
            "centers_A": self._centers.tolist(),
            "well_k_eV_A2": self.well_k_eV_A2.item(),
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], numbers: Sequence[int]) -> "HarmonicWells":
        """Make the model of a `table`, for atoms of any elements."""
        check_names(table, ["form", "centers_A", "well_k_eV_A2"], what="harmonic-wells")
        model = cls(table["centers_A"], well_k_eV_A2=table["well_k_eV_A2"])
        require_atoms(model.atoms, numbers)
        return model


class Springs(ClassicalPotential):
    """½ k Σ (r − r₀)² over given pairs of atoms, in their nearest images.

    Parameters
    ----------
    atoms : int
        N.
    pairs : int array, shape (B, 2)
        Which atoms the springs join.
    spring_k_eV_A2, spring_length_A : float
        The parameters k and r₀, of all springs.

    Raises
    ------
    UserError
        If a number is not positive, or a pair not of two of the atoms.
    """

    def __init__(
        self, atoms: int, pairs: Any, *, spring_k_eV_A2: float, spring_length_A: float
    ) -> None:
        joined = np.asarray(pairs)
        good = joined.ndim == 2 and joined.shape[1] == 2 and joined.dtype.kind in "iu"
        if (
            not good
            or joined.min() < 0
            or joined.max() >= atoms
            or (joined[:, 0] == joined[:, 1]).any()
        ):
            raise UserError(f"pairs={pairs!r}: give pairs of two of the {atoms} atoms, from 0 on.")
        super().__init__(atoms)
        self.spring_k_eV_A2 = parameter("spring_k_eV_A2", spring_k_eV_A2)
        self.spring_length_A = parameter("spring_length_A", spring_length_A)
        self._pairs = joined.astype(np.int64)
        bonds = Bonds(atoms, self._pairs, np.zeros(len(joined), np.int64))
        self.terms.append(InternalTerm(bonds, self._spring))

    def _spring(self, r: Tensor, kinds: Tensor, order: int) -> tuple[Tensor, ...]:
        return harmonic(r, order, self.spring_k_eV_A2, self.spring_length_A)

    def table(self) -> dict[str, Any]:
        """All of the model as it is written to a file, with the present values."""
        return {
            "form": "springs",
            "atoms": self.atoms,
            "pairs": self._pairs.tolist(),
            "spring_k_eV_A2": self.spring_k_eV_A2.item(),
            "spring_length_A": self.spring_length_A.item(),
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], numbers: Sequence[int]) -> "Springs":
        """Make the model of a `table`, for atoms of any elements."""
        values = ["spring_k_eV_A2", "spring_length_A"]
        check_names(table, ["form", "atoms", "pairs", *values], what="springs")
        require_atoms(table["atoms"], numbers)
        return cls(len(numbers), table["pairs"], **{name: table[name] for name in values})


def require_atoms(said: Any, numbers: Sequence[int]) -> None:
    """Raise a `UserError` if a file is for another number of atoms."""
    if said != len(numbers):
        raise UserError(
            f"the file has a model of {said} atoms, but the structure has {len(numbers)}: give the "
            "file of a model for them."
        )
