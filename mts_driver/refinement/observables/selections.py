"""Which atoms an observable looks at."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Indices


def select(symbols: Sequence[str], *elements: str) -> Tensor:
    """Return the atoms of some elements, in order, shape (S,).

    Parameters
    ----------
    symbols : sequence of str, length N
        The elements of all atoms, as `ase.Atoms.symbols` gives them.
    *elements : str
        Those that are asked for.

    Raises
    ------
    UserError
        If no element is named, or there is no atom of one.
    """
    there = set(symbols)
    if not elements:
        raise UserError("no element is selected: name at least one.")
    for element in elements:
        if element not in there:
            raise UserError(
                f"selection {element!r}: there is no atom of it; the elements are "
                f"{', '.join(sorted(there))}."
            )
    return torch.tensor([k for k, symbol in enumerate(symbols) if symbol in elements])


def as_atoms(atoms: Indices, name: str) -> Tensor:
    """Return atoms as int64 indices (S,), none of them twice.

    Parameters
    ----------
    atoms : array of int, shape (S,)
        Indices from 0 up.
    name : str
        Of the argument, for the message.

    Raises
    ------
    UserError
        If they are not such indices, or there is none.
    """
    chosen = torch.as_tensor(atoms)
    if chosen.ndim != 1 or chosen.numel() == 0:
        raise UserError(
            f"{name} has shape {tuple(chosen.shape)}: give the indices of at least one atom, "
            "shape (S,)."
        )
    if chosen.dtype == torch.bool or chosen.is_floating_point() or chosen.is_complex():
        raise UserError(
            f"{name} is of type {chosen.dtype}: give indices of atoms, from 0 up; of a mask these "
            "are mask.nonzero().flatten()."
        )
    if int(chosen.min()) < 0 or len(chosen.unique()) < len(chosen):
        raise UserError(f"{name} has negative or repeated indices: give each atom once, from 0 up.")
    return chosen.to(torch.int64)


def check_atoms(atoms: Tensor, count: int, name: str) -> None:
    """Raise a `UserError` if an index is not below the number of atoms, ``count``."""
    if int(atoms.max()) >= count:
        raise UserError(
            f"{name} names atom {int(atoms.max())}, but there are only {count} atoms: give "
            f"indices from 0 to {count - 1}."
        )
