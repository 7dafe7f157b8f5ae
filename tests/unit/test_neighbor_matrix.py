"""Lists of neighbours on a device: the pairs that ASE finds, and when they are made."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from ase.neighborlist import neighbor_list
from on_device import DEVICE, NoWaiting

from mts_driver.errors import UserError

pytest.importorskip("nvalchemiops")

from mts_driver.structures.neighbor_matrix import NeighborMatrix

REACH_A = 4.5
RNG = np.random.default_rng(4)
CUBE = Atoms("H40", RNG.uniform(-8, 16, (40, 3)), cell=[9.0] * 3, pbc=True)
SKEW = Atoms("H30", RNG.uniform(-8, 16, (30, 3)), cell=[[8, 0, 0], [3, 7, 0], [-2, 1, 9]], pbc=True)
SMALL = Atoms("H5", RNG.uniform(0, 3, (5, 3)), cell=[3.0, 3.2, 2.8], pbc=True)
ALONE = Atoms("H30", RNG.uniform(0, 8, (30, 3)))
SLAB = Atoms("H30", RNG.uniform(0, 8, (30, 3)), cell=[8, 8, 12], pbc=[True, True, False])


def as_tensors(*systems):
    x, cells = ([getattr(a, name) for a in systems] for name in ("positions", "cell"))
    cells = np.array([np.array(c) for c in cells])
    return torch.tensor(np.array(x), device=DEVICE), torch.tensor(cells, device=DEVICE)


def vectors_of(near, x, cells):
    """Atoms, neighbours and vectors of all entries, sorted."""
    flat, found = x.flatten(0, 1), []
    for a in range(len(flat)):
        n = int(near.count[a])
        j, images = near.neighbors[a, :n].long(), near.images[a, :n].double()
        d = flat[j] + images @ cells[a // x.shape[1]] - flat[a]
        assert j.tolist() == sorted(j.tolist())
        found += [(a, b, *np.round(v, 6)) for b, v in zip(j.tolist(), d.tolist(), strict=True)]
    return np.array(sorted(found))


def expected(systems):
    found = []
    for k, atoms in enumerate(systems):
        i, j, d = neighbor_list("ijD", atoms, REACH_A)
        n = k * len(atoms)
        found += [(a + n, b + n, *np.round(v, 6)) for a, b, v in zip(i, j, d, strict=True)]
    return np.array(sorted(found))


def shaken(atoms, number):
    moved = atoms.copy()
    moved.positions += np.random.default_rng(number).normal(0, 0.5, moved.positions.shape)
    return moved


@pytest.mark.parametrize("number", [1, 3], ids=["one", "three"])
@pytest.mark.parametrize(
    "atoms", [CUBE, SKEW, SMALL, ALONE, SLAB], ids=["cube", "skew", "small", "alone", "slab"]
)
def test_pairs_are_those_of_ase(atoms, number):
    systems = [shaken(atoms, k) for k in range(number)]
    x, cells = as_tensors(*systems)
    near = NeighborMatrix(
        cutoff_A=3.5,
        skin_A=1.0,
        periodic=tuple(atoms.pbc.tolist()) if atoms.pbc.any() else (True,) * 3,
    )
    near.update(x, cells)
    np.testing.assert_allclose(vectors_of(near, x, cells), expected(systems), atol=2e-6)


@pytest.mark.parametrize("number", [1, 3], ids=["one", "three"])
@pytest.mark.parametrize("atoms", [CUBE, SKEW], ids=["cube", "skew"])
def test_lists_of_cells_find_the_same(atoms, number):
    """Theirs is the way of large systems; what they leave in rows they do not fill is garbage."""
    systems = [shaken(atoms, k) for k in range(number)]
    x, cells = as_tensors(*systems)
    near = NeighborMatrix(cutoff_A=3.5, skin_A=1.0, method="cell_list")
    near.update(x, cells)
    near._state.neighbor_matrix_shifts.fill_(-300_000)
    with NoWaiting():
        near.build(x)
    np.testing.assert_allclose(vectors_of(near, x, cells), expected(systems), atol=2e-6)
    assert "cell_list" in near._state.method


def test_a_large_system_takes_them_and_one_without_a_cell_does_not():
    large = CUBE * (4, 4, 4)
    for atoms, way in ((large, "cell_list"), (Atoms("H2560", large.positions), "naive")):
        x, cells = as_tensors(atoms)
        near = NeighborMatrix(cutoff_A=3.5, skin_A=0.5)
        near.update(x, cells)
        assert near.recordable == (way == "naive" or DEVICE != "cpu")
        i = neighbor_list("i", atoms, 4.0)
        assert near.count.cpu().tolist() == np.bincount(i, minlength=len(atoms)).tolist()


def test_water(structures):
    atoms = read(structures / "water64_packmol.extxyz")
    x, cells = as_tensors(atoms)
    near = NeighborMatrix(cutoff_A=3.5, skin_A=1.0)
    near.update(x, cells)
    np.testing.assert_allclose(vectors_of(near, x, cells), expected([atoms]), atol=2e-6)


def test_it_is_made_again_when_an_atom_has_moved_half_a_skin():
    x, cells = as_tensors(CUBE)
    near = NeighborMatrix(cutoff_A=3.5, skin_A=1.0)
    near.update(x, cells)
    place = near.neighbors.data_ptr()
    for moved_A, builds in ((0.49, 1), (0.51, 2)):
        y = x.clone()
        y[0, 7, 1] += moved_A
        near.update(y, cells)
        assert near.builds == builds
    assert near.neighbors.data_ptr() == place and near.generation == 1
    near.update(y, 1.001 * cells)
    assert near.builds == 3


@pytest.mark.parametrize("ordered", [True, False])
def test_lists_are_made_anew_where_another_such_step_may_need_it(ordered):
    """By the device, for every replica: half the skin is for the way so far and 1.5 steps more."""
    systems = [shaken(CUBE, k) for k in range(3)]
    x, cells = as_tensors(*systems)
    near = NeighborMatrix(cutoff_A=3.5, skin_A=1.0, ordered=ordered)
    near.update(x, cells)
    before = near.reference.clone()
    x[1, 4, 0] += 0.19
    near.refresh(x)
    torch.testing.assert_close(near.reference, before, rtol=0, atol=0)
    x[1, 4, 0] += 0.19  # 0.38 and 1.5 times 0.19: not for another
    x[2, 0, 1] += 0.1
    with NoWaiting():
        near.refresh(x)
    torch.testing.assert_close(near.reference[1], x[1], rtol=0, atol=0)
    torch.testing.assert_close(near.reference[::2], before[::2], rtol=0, atol=0)
    near.look(x)
    assert int(near.told[0]) == 0
    near.look(x + 0.3)
    assert int(near.told[0]) == 1
    if ordered:
        for system, positions in zip(systems, near.reference.cpu(), strict=True):
            system.positions = positions.numpy()
        then = near.reference.clone()
        np.testing.assert_allclose(vectors_of(near, then, cells), expected(systems), atol=2e-6)


def test_rows_that_are_too_short_grow():
    """Atoms come together, so that there are more neighbours than there is room for."""
    x, cells = as_tensors(CUBE)
    dense = 0.3 * x
    cells = 3.0 * cells
    near = NeighborMatrix(cutoff_A=3.5, skin_A=1.0)
    near.update(3.0 * x, cells)
    near.build(dense)
    assert bool(near.overflow())
    before = near.neighbors.shape[1]
    near.update(dense, cells)
    assert not bool(near.overflow()) and near.neighbors.shape[1] > before
    together = Atoms(CUBE.symbols, dense[0].cpu().numpy(), cell=cells[0].cpu().numpy(), pbc=True)
    np.testing.assert_allclose(vectors_of(near, dense, cells), expected([together]), atol=2e-6)


def test_making_it_again_waits_for_nothing():
    for atoms in (CUBE, ALONE):
        x, cells = as_tensors(atoms)
        near = NeighborMatrix(cutoff_A=3.5, skin_A=1.0)
        near.update(x, cells)
        with NoWaiting():
            near.build(x + 0.1)
            near.moved(x)
            near.overflow()


def test_a_trajectory_that_blew_up_is_an_error():
    x, cells = as_tensors(CUBE)
    near = NeighborMatrix(cutoff_A=3.5, skin_A=1.0)
    near.update(x, cells)
    x[0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        near.update(x, cells)


@pytest.mark.parametrize("number", [1, 3], ids=["one", "three"])
@pytest.mark.parametrize(
    "atoms", [CUBE, SKEW, SMALL, ALONE], ids=["cube", "skew", "small", "alone"]
)
def test_a_list_is_sifted_from_one_that_reaches_further(atoms, number):
    systems = [shaken(atoms, k) for k in range(number)]
    x, cells = as_tensors(*systems)
    far = NeighborMatrix(cutoff_A=6.0, skin_A=1.0, ordered=False)
    near = NeighborMatrix(cutoff_A=REACH_A - 1.0, skin_A=1.0, within=far)

    def found():
        return vectors_of(near, x, cells)

    for one in (far, near):
        one.update(x, cells)
    np.testing.assert_allclose(found(), expected(systems), atol=2e-6)
    # where the other is old, and has all pairs
    for k, system in enumerate(systems):
        system.positions += np.random.default_rng(k).uniform(-0.25, 0.25, system.positions.shape)
    x = as_tensors(*systems)[0]
    with NoWaiting():
        near.build(x)
    assert not torch.equal(far.reference, x) and torch.equal(near.reference, x)
    np.testing.assert_allclose(found(), expected(systems), atol=2e-6)
    # and where it has moved to another place
    before, far._longest = near.generation, 2 * far._longest
    far.make_room()
    for one in (far, near):
        one.update(x, cells)
    assert near.generation > before
    np.testing.assert_allclose(found(), expected(systems), atol=2e-6)
