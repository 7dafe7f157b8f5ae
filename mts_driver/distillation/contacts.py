"""Close contacts: molecules pushed into one another, as in a structure that packmol has packed.

A student that has seen equilibrium only does not know that two oxygens 2 Å apart repel each other:
a random packing, or a hot moment, then ends with molecules on top of one another.
"""

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SHARE_OF_MOLECULES = 0.1
LARGEST_MOLECULE = 40
"""Atoms; a protein is not turned round."""
REACH_A = 3.4
CLOSEST = 0.5
"""A pair ends between this share of its distance and the whole."""


def molecules(atoms: Atoms) -> np.ndarray:
    """Return the number of the molecule of every atom, shape (N,), from covalent radii."""
    i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.15))
    bonds = coo_matrix((np.ones(len(i)), (i, j)), shape=(len(atoms), len(atoms)))
    return connected_components(bonds, directed=False)[1]


def crowd(atoms: Atoms, rng: np.random.Generator) -> None:
    """Turn some molecules at random and move each towards one atom of a neighbour, in place.

    Parameters
    ----------
    atoms : ase.Atoms
        Changed; a system of one molecule is left as it is.
    rng : numpy.random.Generator
        Source of all choices.
    """
    member = molecules(atoms)
    small = np.flatnonzero(np.bincount(member) <= LARGEST_MOLECULE)
    if member.max() == 0:
        return
    for molecule in small[rng.random(len(small)) < SHARE_OF_MOLECULES]:
        mine = np.flatnonzero(member == molecule)
        _turn(atoms, mine, rng)
        i, j, d = neighbor_list("ijD", atoms, REACH_A)
        outside = np.flatnonzero((member[i] == molecule) & (member[j] != molecule))
        if len(outside):
            pair = outside[rng.integers(len(outside))]
            atoms.positions[mine] += d[pair] * (1.0 - rng.uniform(CLOSEST, 1.0))


def _turn(atoms: Atoms, mine: np.ndarray, rng: np.random.Generator) -> None:
    """Rotate a molecule about its first atom by a random rotation."""
    arms = atoms.get_distances(mine[0], mine, mic=bool(atoms.pbc.any()), vector=True)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    atoms.positions[mine] = atoms.positions[mine[0]] + arms @ rotation.T
