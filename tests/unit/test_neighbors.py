"""Verlet lists against ASE's neighbour list, and their independence of history."""

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from mts_driver.errors import UserError
from mts_driver.structures.neighbors import VerletList, _in_small_cell, _vesin


def box(n=60, length=7.0, seed=0):
    rng = np.random.default_rng(seed)
    cell = length * (np.eye(3) + 0.15 * rng.random((3, 3)))
    return Atoms("H" * n, rng.random((n, 3)) @ cell * 1.7 - 2.0, cell=cell, pbc=True)


@pytest.mark.parametrize("cutoff", [2.5, 8.0])  # the second sees several images of an atom
def test_same_pairs_as_ase(cutoff):
    atoms = box()
    pairs = VerletList(cutoff_A=cutoff, skin_A=0.5).pairs(atoms.positions, np.array(atoms.cell))
    i, d = neighbor_list("id", atoms, cutoff)
    assert 2 * len(pairs.i) == len(i)
    both = np.concatenate((pairs.distances, pairs.distances))
    np.testing.assert_allclose(np.sort(both), np.sort(d), atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(pairs.vectors, axis=1), pairs.distances)
    assert (pairs.i <= pairs.j).all()
    found = np.bincount(np.concatenate((pairs.i, pairs.j)), minlength=len(atoms))
    np.testing.assert_array_equal(found, np.bincount(i, minlength=len(atoms)))


def test_does_not_depend_on_when_it_was_built():
    """The same pairs in the same order: a restarted run sums in the same order."""
    rng, atoms = np.random.default_rng(1), box()
    cell, kept = np.array(atoms.cell), VerletList(cutoff_A=3.0, skin_A=1.0)
    for _ in range(30):
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        old = kept.pairs(atoms.positions, cell)
        new = VerletList(cutoff_A=3.0, skin_A=1.0).pairs(atoms.positions, cell)
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b)
    assert 1 < kept.builds < 15


def test_new_cell_is_noticed():
    atoms = box()
    kept = VerletList(cutoff_A=3.0, skin_A=1.0)
    kept.pairs(atoms.positions, np.array(atoms.cell))
    squeezed = 0.95 * np.array(atoms.cell)
    i, _ = neighbor_list("ij", Atoms("H60", atoms.positions, cell=squeezed, pbc=True), 3.0)
    assert 2 * len(kept.pairs(atoms.positions, squeezed).i) == len(i)


def test_isolated_atoms():
    pairs = VerletList(cutoff_A=3.0, skin_A=1.0).pairs(
        np.array([[0, 0, 0], [0, 0, 1.0], [0, 0, 9.0]]), np.zeros((3, 3))
    )
    assert pairs.i.tolist() == [0] and pairs.j.tolist() == [1]


def test_a_barostat_does_not_rebuild_it_every_step():
    """Cell and positions breathe and shear; what is found is what a new list finds."""
    rng, atoms = np.random.default_rng(2), box()
    start, kept = np.array(atoms.cell), VerletList(cutoff_A=3.0, skin_A=1.0)
    for k in range(40):
        strain = np.eye(3) + 0.03 * np.sin(0.2 * k) * np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, -1]])
        atoms.set_cell(start @ strain, scale_atoms=True)
        atoms.positions += 0.01 * rng.normal(size=atoms.positions.shape)
        cell = np.array(atoms.cell)
        new = VerletList(cutoff_A=3.0, skin_A=1.0).pairs(atoms.positions, cell)
        for a, b in zip(kept.pairs(atoms.positions, cell), new, strict=True):
            np.testing.assert_array_equal(a, b)
    assert 1 <= kept.builds < 6


@pytest.mark.parametrize("reach", [4.0, 9.0])
def test_small_cells_are_searched_as_large_ones_are(reach):
    atoms = box(n=50)
    positions, cell = atoms.positions, np.array(atoms.cell)
    for a, b in zip(
        _in_small_cell(positions, cell, reach), _vesin(positions, cell, reach), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_positions_that_are_far_from_wrapped():
    atoms = box()
    atoms.positions[3] += 70 * np.array(atoms.cell)[0]
    with pytest.raises(UserError, match="cells apart"):
        VerletList(cutoff_A=3.0, skin_A=1.0).pairs(atoms.positions, np.array(atoms.cell))


def test_atoms_of_a_flat_molecule_that_are_far_apart():
    """vesin divides by zero where a wide and flat space has more of its cells than it takes."""
    atoms = Atoms("H40", np.random.default_rng(0).random((40, 3)) * [4e4, 4e4, 0.0])
    atoms.positions[20:] = atoms.positions[:20]
    atoms.positions[20:, 1] += 0.7
    pairs = VerletList(cutoff_A=3.0, skin_A=1.0).pairs(atoms.positions, np.zeros((3, 3)))
    np.testing.assert_array_equal(np.stack((pairs.i, pairs.j), 1), [[k, k + 20] for k in range(20)])
    with pytest.raises(UserError, match="too flat"):
        VerletList(cutoff_A=3.0, skin_A=1.0).pairs(atoms.positions, np.diag([4e4, 4e4, 8.0]))
