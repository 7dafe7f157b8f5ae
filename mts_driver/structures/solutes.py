"""Which atoms are solute and which solvent, and how much each counts in a fine-tuning."""

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mts_driver.structures.bonds import LARGEST_MOLECULE, molecules

FEWEST_ALIKE = 5
"""Molecules of one formula that make a solvent."""


def force_groups(atoms: Atoms) -> dict[str, Tensor]:
    """Return masks (N,) of all atoms, of every element, and of solute and solvent if there are two.

    The solvent are all molecules of the commonest formula, if there are at least five.
    """
    symbols = np.array(atoms.get_chemical_symbols())
    groups = {"all": np.ones(len(atoms), bool)}
    groups |= {str(element): symbols == element for element in np.unique(symbols)}
    member = molecules(atoms)
    alike: dict[tuple[str, ...], list[int]] = {}
    for molecule in np.flatnonzero(np.bincount(member) <= LARGEST_MOLECULE).tolist():
        formula = tuple(sorted(symbols[member == molecule].tolist()))
        alike.setdefault(formula, []).append(molecule)
    commonest = max(alike.values(), key=len, default=[])
    solvent = np.isin(member, commonest)
    if len(commonest) >= FEWEST_ALIKE and not solvent.all():
        groups |= {"solute": ~solvent, "solvent": solvent}
    return {name: torch.tensor(mask) for name, mask in groups.items()}


def temperature_groups(atoms: Atoms) -> dict[str, np.ndarray]:
    """Return masks (N,) of the atoms whose temperatures are told apart; none is empty.

    "all", "H" and "heavy"; of a solute, see `force_groups`, also "solute H" and "solute heavy": a
    dozen atoms that are 30 K too hot warm six hundred by less than one.
    """
    hydrogen = atoms.numbers == 1
    groups = {"all": np.ones_like(hydrogen), "H": hydrogen, "heavy": ~hydrogen}
    if (found := force_groups(atoms).get("solute")) is not None:
        solute = found.numpy()
        groups |= {"solute H": hydrogen & solute, "solute heavy": ~hydrogen & solute}
    return {name: mask for name, mask in groups.items() if mask.any()}


def solute_weights(atoms: Atoms) -> np.ndarray:
    """Return what the force on every atom counts, shape (N,), so that a solute is not drowned.

    Ten atoms among six hundred of a solvent have 1.5 % of a plain mean, and what is fitted is the
    solvent. Weighted by the square root of the ratio of their numbers they have 11 %. The solvent,
    and all atoms where no molecule is in the majority, count 1.
    """
    weights, groups = np.ones(len(atoms)), force_groups(atoms)
    if "solute" in groups:
        solute = groups["solute"].numpy()
        weights[solute] = np.sqrt((~solute).sum() / solute.sum()).clip(min=1.0)
    return weights
