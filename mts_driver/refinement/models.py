"""Models whose parameters can be fitted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from torch import Tensor

from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.refinement.observables.energies import Energy
from mts_driver.refinement.settings import RefineSettings


@dataclass(frozen=True, eq=False)
class Trainable:
    """A model for some atoms, and what can be fitted in it.

    Attributes
    ----------
    potential : Potential
        Can be pulled back; see `integrators.linearized`.
    parameters : mapping of str to Tensor
        Leaves that require gradients.
    energy : callable
        Potential energy with a graph to the parameters.
    gas_energy_eV : callable
        Mean energy of one molecule in the gas phase.
    save : callable
        Writes the model to a folder, and returns the file.
    is_student : bool
        Whether it is a student.
    as_it_was : callable
        Returns the model before it was fitted.
    """

    potential: Potential
    parameters: Mapping[str, Tensor]
    energy: Energy
    gas_energy_eV: Callable[[RefineSettings], Tensor]
    save: Callable[[Path, dict[str, Any]], Path]
    is_student: bool
    as_it_was: Callable[[], Potential]


def open_model(spec: str, atoms: Atoms, train: Sequence[str]) -> Trainable:
    """Open a model to fit it.

    Raises
    ------
    UserError
        If it is neither a student nor a classical model, or has no parameter of these names.
    """
    raise UserError(f"model={spec!r} {train} {atoms}")
