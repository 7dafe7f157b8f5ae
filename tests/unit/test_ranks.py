"""Models whose atoms are shared out among ranks give what they give alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read
from thread_ranks import on_ranks

from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.ranks.bricks import bricks
from mts_driver.potentials.ranks.pairs import SharedList
from mts_driver.structures.neighbors import VerletList
from mts_driver.structures.tensors import cell_of

WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"


def systems() -> dict[str, Atoms]:
    rng = np.random.default_rng(1)
    box = read(WATER64)
    turned = box.copy()
    turned.set_cell(box.cell.array @ [[1, 0, 0], [0.2, 1, 0], [-0.1, 0.3, 1]], scale_atoms=True)
    outside = box.copy()
    outside.positions += rng.integers(-2, 3, (len(box), 3)) @ box.cell.array
    slab = box.copy()
    slab.cell[2] *= 3
    cluster = Atoms(box.numbers, box.positions)
    apart = molecule("H2O2")
    apart.extend(Atoms("OH2", molecule("H2O").positions + np.array([40.0, 3.0, 0.0])))
    return {
        "box": box,
        "triclinic": turned,
        "outside of the cell": outside,
        "slab": slab,
        "isolated": cluster,
        "two molecules far apart": apart,
    }


SYSTEMS = systems()


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_every_atom_has_one_brick_of_equal_size(name, size):
    atoms = SYSTEMS[name]
    found = bricks(atoms.positions, cell_of(atoms).numpy(), size)
    assert sorted(np.concatenate(found.atoms)) == list(range(len(atoms)))
    counts = [len(one) for one in found.atoms]
    assert max(counts) - min(counts) <= 2


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("size", [2, 8])
def test_ranks_have_all_pairs(name, size, both):
    """Each once, or, with ``both``, once on each rank that has one of the atoms."""
    atoms = SYSTEMS[name]
    x, cell = atoms.positions, cell_of(atoms).numpy()
    reach = {"cutoff_A": 6.0, "skin_A": 0.5}
    alone = VerletList(**reach).pairs(x, cell)

    def work(ranks):
        shared = SharedList(ranks, **reach, both=both)
        shared.update(x, cell)
        atoms = shared.share.atoms
        pairs = shared.within(x[atoms], cell)
        return pairs._replace(i=atoms[pairs.i], j=atoms[pairs.j]), set(shared.share.own.tolist())

    def rows(pairs):
        return {
            (int(i), int(j), *np.round(v, 6).tolist())
            for i, j, v in zip(pairs.i, pairs.j, pairs.vectors, strict=True)
        }

    found = on_ranks(size, work)
    assert set().union(*(rows(pairs) for pairs, _ in found)) == rows(alone)
    if both:
        for pairs, own in found:
            wanted = {row for row in rows(alone) if row[0] in own or row[1] in own}
            assert rows(pairs) == wanted
    else:
        assert sum(len(pairs.i) for pairs, _ in found) == len(alone.i)


def evaluated(spec, atoms, dtype, ranks=None, frames=None):
    potential = load_potential(spec, atoms.numbers.tolist(), dtype=dtype, ranks=ranks)
    found = []
    for x in [atoms.positions] if frames is None else frames:
        e = potential(torch.tensor(x), cell_of(atoms))
        found.append((float(e.energy), e.forces.double().numpy(), e.virial.double().numpy()))
    return found


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("size", [3, 8])
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [pytest.param("float64", 1e-9, marks=pytest.mark.slow), ("float32", 1e-4)],
)
def test_a_student_on_ranks_is_the_student(name, size, dtype, bound):
    atoms, spec = SYSTEMS[name], "student:water"
    ((energy, forces, virial),) = evaluated(spec, atoms, dtype)
    for ((e, f, v),) in on_ranks(size, lambda ranks: evaluated(spec, atoms, dtype, ranks)):
        assert e == pytest.approx(energy, rel=1e-6 if dtype == "float32" else 1e-12)
        np.testing.assert_allclose(f, forces, atol=bound)
        np.testing.assert_allclose(v, virial, atol=100 * bound)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(("size", "dtype", "bound"), [(2, "float64", 1e-9), (3, "float32", 1e-4)])
def test_so3lr_on_ranks_is_so3lr(name, size, dtype, bound):
    pytest.importorskip("so3krates_torch")
    atoms = SYSTEMS[name]
    ((energy, forces, virial),) = evaluated("so3lr", atoms, dtype)
    for ((e, f, v),) in on_ranks(size, lambda ranks: evaluated("so3lr", atoms, dtype, ranks)):
        assert e == pytest.approx(energy, rel=1e-6 if dtype == "float32" else 1e-12)
        np.testing.assert_allclose(f, forces, atol=bound)
        np.testing.assert_allclose(v, virial, atol=100 * bound)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("spec", "size", "dtype", "bound"),
    [
        ("so3lr", 2, "float64", 1e-9),
        ("so3lr", 3, "float32", 1e-4),
        ("student:water", 3, "float64", 1e-9),
        ("student:general", 5, "float32", 1e-4),
    ],
)
def test_models_on_a_device_a_rank_are_the_model(name, spec, size, dtype, bound):
    """On the CPU device; pairs of two ranks are one's, and halos of a student twice its field."""
    pytest.importorskip("so3krates_torch")
    atoms = SYSTEMS[name]
    ((energy, forces, virial),) = evaluated(spec, atoms, dtype)
    device = f"{spec}?backend=device"
    for ((e, f, v),) in on_ranks(size, lambda ranks: evaluated(device, atoms, dtype, ranks)):
        assert e == pytest.approx(energy, rel=1e-6 if dtype == "float32" else 1e-12)
        np.testing.assert_allclose(f, forces, atol=bound)
        np.testing.assert_allclose(v, virial, atol=100 * bound)


def test_a_charge_is_shared():
    pytest.importorskip("so3krates_torch")
    ion = Atoms("OH3", [[0, 0, 0.1], [0, 0.95, -0.2], [0.82, -0.47, -0.2], [-0.82, -0.47, -0.2]])
    ((energy, forces, _),) = evaluated("so3lr?charge=1", ion, "float64")
    for ((e, f, _),) in on_ranks(4, lambda r: evaluated("so3lr?charge=1", ion, "float64", r)):
        assert e == pytest.approx(energy, rel=1e-12)
        np.testing.assert_allclose(f, forces, atol=1e-9)


@pytest.mark.parametrize("backend", ["cpu", "device"])
@pytest.mark.parametrize("spec", [pytest.param("student:water", marks=pytest.mark.slow), "so3lr"])
def test_atoms_that_cross_borders(spec, backend):
    """Lists are built anew on all ranks at once, and atoms go to others."""
    pytest.importorskip("so3krates_torch")
    atoms = SYSTEMS["box"]
    steps = np.linspace(0, 7.0, 6)
    frames = [atoms.positions + np.array([step, 0.3 * step, 0.0]) for step in steps]
    frames = [x + 0.02 * np.sin(k + x) for k, x in enumerate(frames)]
    alone = evaluated(spec, atoms, "float64", frames=frames)
    spec = f"{spec}?backend={backend}"
    for found in on_ranks(3, lambda r: evaluated(spec, atoms, "float64", r, frames)):
        for (e, f, _), (energy, forces, _) in zip(found, alone, strict=True):
            assert e == pytest.approx(energy, rel=1e-12)
            np.testing.assert_allclose(f, forces, atol=1e-9)


def test_what_cannot_be_shared_is_refused():
    def work(ranks):
        with pytest.raises(UserError, match=r"socket:.* cannot be shared out among 2 ranks"):
            load_potential("socket:nobody", [18], ranks=ranks)

    on_ranks(2, work)
