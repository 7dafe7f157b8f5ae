"""SO3LR's path for a device, run on the CPU, against the kernels for the CPU and plain torch."""

import gc
import weakref

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read
from on_device import DEVICE, NoWaiting, plain_attention

from mts_driver.potentials import load_potential
from mts_driver.potentials.so3lr.network import HalfListTransformer
from mts_driver.potentials.so3lr.potential import packaged_model

pytest.importorskip("so3krates_torch")
pytest.importorskip("nvalchemiops")

from mts_driver.potentials.so3lr.device.geometry import DeviceGeometry
from mts_driver.potentials.so3lr.device.potential import DeviceSO3LR
from mts_driver.structures import neighbor_matrix


def load(atoms, dtype="float64", options=""):
    numbers = atoms.numbers.tolist()
    return [
        load_potential(f"so3lr?backend={one}{options}", numbers, dtype=dtype, device=device)
        for one, device in (("cpu", "cpu"), ("device", DEVICE))
    ]


def as_tensors(atoms):
    return torch.tensor(atoms.positions), torch.tensor(np.array(atoms.cell))


def assert_same(found, expected, atol=2e-8):
    """Kernels for the CPU read radial functions from tables, whose forces are 1e-8 eV/Å off."""
    torch.testing.assert_close(found.energy, expected.energy, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.forces, expected.forces, atol=atol, rtol=0)
    torch.testing.assert_close(found.virial, expected.virial, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def few():
    """Eight waters in a skew cell that is smaller than the long cutoff."""
    rng = np.random.default_rng(5)
    atoms = Atoms(cell=[[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 1.0, 8.5]], pbc=True)
    for site in np.ndindex(2, 2, 2):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate(np.array(site) @ np.array(atoms.cell) / 2 + rng.normal(0, 0.1, 3))
        atoms += water
    return atoms


def test_water(structures):
    atoms = read(structures / "water64_packmol.extxyz")
    x, cell = as_tensors(atoms)
    cpu, device = load(atoms)
    expected = cpu(x, cell)
    assert_same(device(x, cell), expected)
    single = load(atoms, "float32")[1](x, cell)
    wrong = single.forces - expected.forces
    assert float(wrong.square().mean().sqrt()) < 5e-6 and float(wrong.abs().max()) < 3e-5
    assert abs(float(single.energy - expected.energy)) < 1e-3


def test_it_is_the_network_in_plain_torch(few):
    """Beside the kernels for the CPU, which have the same tables, there is rounding only."""
    x, cell = as_tensors(few)
    cpu, device = load(few)
    assert isinstance(device._network, HalfListTransformer)
    found = device(x, cell)
    assert_same(found, cpu(x, cell), atol=1e-9)
    cpu._network.attention = plain_attention(torch.float64)
    assert_same(found, cpu(x, cell), atol=1e-8)


def test_ions_replicas_and_no_cell(few):
    x, cell = as_tensors(few)
    cpu, device = load(few, options="&charge=-1")
    moves = 0.05 * torch.randn(2, *x.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    cells = torch.stack([cell, 1.03 * cell])
    assert_same(device(x + moves, cells), cpu(x + moves, cells))
    alone = torch.zeros(3, 3, dtype=torch.float64)
    assert_same(device(x, alone), cpu(x, alone))


def test_pairs_that_do_not_fit_get_more_room(few):
    x, cell = as_tensors(few)
    cpu, device = load(few)
    wide = 3.0
    centers = x.view(-1, 3, 3)[:, :1].expand(-1, 3, -1).reshape(x.shape)
    assert_same(
        device(x + (wide - 1) * centers, wide * cell), cpu(x + (wide - 1) * centers, wide * cell)
    )
    few_pairs = device._pairs.length
    device._pairs.length = 8  # as if there were room for so many
    device._pairs._alone = device._pairs._alone[:9]
    assert_same(
        device(x + (wide - 1) * centers, wide * cell), cpu(x + (wide - 1) * centers, wide * cell)
    )
    assert device._pairs.length == few_pairs


def test_a_large_system_has_its_far_list_by_cells(few, monkeypatch):
    """Which no graph can have, while the near one is sifted from it wherever it is."""
    monkeypatch.setitem(neighbor_matrix.MOST_BY_ALL_PAIRS, torch.device(DEVICE).type, 1)
    x, cell = as_tensors(few)
    cpu, device = load(few)
    assert_same(device(x, cell), cpu(x, cell))
    assert device.near.recordable and not device.lists_recordable
    there, cells = x[None].to(DEVICE), cell[None].to(DEVICE)
    for move, search in ((0.2, False), (0.3, True)):  # within the skin, and for another such move
        x = x + move * torch.nn.functional.normalize(torch.sin(3.0 * x), dim=-1)
        there = x[None].to(DEVICE)
        assert bool(device.due(there)) == search
        device.rebuild(there, search=search)
        assert torch.equal(device.far.reference, there) == search
        found = device.evaluate(there, cells)
        torch.testing.assert_close(found.forces[0].cpu(), cpu(x, cell).forces, atol=1e-8, rtol=0)
        assert not any(told.any() for told in device.told())


def test_an_evaluation_waits_for_nothing(few):
    x, cell = as_tensors(few)
    device = load(few)[1]
    assert isinstance(device, DeviceSO3LR)
    device(x, cell)
    there = x[None].to(DEVICE), cell[None].to(DEVICE)
    with NoWaiting():
        device.evaluate(*there)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_the_geometry_of_pairs_is_that_of_torch(dtype, atol):
    """With bonds so short that nuclei repel each other, and a pair beyond the cutoff."""
    packaged = packaged_model(torch.device(DEVICE), dtype)[0]
    rng = torch.Generator().manual_seed(3)
    directions = torch.randn(40, 3, dtype=dtype, generator=rng)
    lengths = torch.linspace(0.6, 4.6, 40, dtype=dtype)[:, None]
    vectors = (directions / directions.norm(dim=-1, keepdim=True) * lengths).to(DEVICE)
    weights = [torch.randn(40, n, dtype=dtype, generator=rng).to(DEVICE) for n in (1, 1, 24, 1)]
    i, j = torch.arange(40, device=DEVICE) % 7, torch.arange(40, device=DEVICE) % 5
    numbers = torch.tensor([1, 8, 6, 7, 17, 1, 16], device=DEVICE)
    network, found = HalfListTransformer(packaged, numbers, 0.0), []
    for evaluate in (DeviceGeometry(packaged), network._plain_geometry):
        leaf = vectors.clone().requires_grad_()
        parts = evaluate(i, j, leaf, numbers)
        sums = [(part.view(40, -1) * w).sum() for part, w in zip(parts, weights, strict=True)]
        (slopes,) = torch.autograd.grad(sum(sums), leaf)
        found.append((*parts, slopes))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=10 * atol)
    assert found[0][3].abs().max() > 1.0 and (found[0][1][-1] == 0).all()


@pytest.mark.parametrize("spec", ["so3lr", "student:water"])
def test_what_is_not_used_any_more_is_freed_at_once(spec, few):
    """And not by Python's garbage collector, amid the recording of a graph, which that ends."""
    numbers = few.numbers.tolist()
    model = load_potential(f"{spec}?backend=device", numbers, device=DEVICE)
    model(*as_tensors(few))
    left = weakref.ref(model)
    gc.collect()
    gc.disable()
    try:
        del model
        assert left() is None
    finally:
        gc.enable()
