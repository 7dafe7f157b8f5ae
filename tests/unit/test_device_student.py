"""The student's kernels for a device, run on the CPU, against those for the CPU."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.io import read
from on_device import DEVICE, NoWaiting
from test_student import LOCAL, ODD, PASSING, WATER, random_model

from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.student.file import find_student
from mts_driver.potentials.student.linearized import reference_pull
from mts_driver.potentials.student.potential import Student
from mts_driver.structures import neighbor_matrix

pytest.importorskip("nvalchemiops")

from mts_driver.potentials.student.device.potential import DeviceStudent

DIRECT = {"direct": True, "messages": 8}
ALONE = torch.zeros(3, 3, dtype=torch.float64)


def both(numbers, dtype="float64", **options):
    """The student of random weights on the CPU, and the same on a device."""
    device = DeviceStudent(random_model(**options), numbers, dtype=dtype, device=DEVICE)
    return Student(random_model(**options), numbers, dtype=dtype), device


def assert_same(found, expected, atol=1e-9):
    for name, one, other in zip(("energy", "forces", "virial"), found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=1e-9, msg=lambda m, n=name: n + m)


@pytest.fixture(scope="module")
def water(structures):
    atoms = read(structures / "water64_packmol.extxyz")
    return atoms.numbers, torch.tensor(atoms.positions), torch.tensor(np.array(atoms.cell))


@pytest.mark.parametrize(
    "options", [LOCAL, PASSING, ODD, DIRECT], ids=["local", "passing", "odd", "direct"]
)
def test_it_is_the_student_of_the_cpu(water, options):
    numbers, x, cell = water
    cpu, device = both(numbers, **options)
    assert_same(device(x, cell), cpu(x, cell))
    assert device.has_virial == cpu.has_virial


@pytest.mark.parametrize("name", ["water", "general"])
def test_single_precision(structures, name):
    """As far from float64 as rounding brings it, eV/Å."""
    atoms = read(
        structures / "ethanol_water200.extxyz"
        if name == "general"
        else structures / "water64_packmol.extxyz"
    )
    numbers, x = atoms.numbers.tolist(), torch.tensor(atoms.positions)
    cell = torch.tensor(np.array(atoms.cell))
    exact = load_potential(f"student:{name}", numbers, dtype="float64")(x, cell)
    found = load_potential(f"student:{name}?backend=device", numbers, device=DEVICE)(x, cell)
    assert isinstance(load_potential(f"student:{name}?backend=device", numbers), DeviceStudent)
    wrong = found.forces - exact.forces
    assert float(wrong.square().mean().sqrt()) < 5e-6 and float(wrong.abs().max()) < 2e-5
    assert abs(float(found.energy - exact.energy)) < 1e-6 * len(numbers)


def test_replicas_in_a_batch(water):
    """Each has positions, and a cell, of its own."""
    numbers, x, cell = water
    cpu, device = both(numbers, **PASSING)
    moves = 0.1 * torch.randn(3, *x.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    cells = torch.stack([cell, 1.02 * cell, cell])
    assert_same(device(x + moves, cells), cpu(x + moves, cells))
    assert_same(device(x, cell), cpu(x, cell))  # and one alone again


def test_skew_small_and_no_cells():
    ice = bulk("HO", "rocksalt", a=4.1)
    rng = np.random.default_rng(2)
    for atoms in (ice, ice * (2, 2, 3), molecule("H2O")):
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        cpu, device = both(atoms.numbers, **PASSING)
        x, cell = torch.tensor(atoms.positions), torch.tensor(np.array(atoms.cell))
        assert_same(device(x, cell), cpu(x, cell))


def test_forces_have_the_same_bits_every_time(water):
    numbers, x, cell = water
    _, device = both(numbers, dtype="float32", **PASSING)
    first = device(x, cell)
    device(x + 1.0, cell)
    again = device(x, cell)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


def test_atoms_that_come_together_get_longer_rows(water):
    """More neighbours than there is room for are noticed, and no force is wrong."""
    numbers, x, cell = water
    cpu, device = both(numbers, **LOCAL)
    device(x, cell)
    before = device.near.generation
    dense = 0.75 * x
    assert_same(device(dense, 0.75 * cell), cpu(dense, 0.75 * cell), atol=1e-6)
    assert device.near.generation > before


def test_an_evaluation_waits_for_nothing(water):
    numbers, x, cell = water
    for options in (PASSING, DIRECT):
        _, device = both(numbers, **options)
        device(x, cell)
        with NoWaiting():
            device.evaluate(x[None].to(DEVICE), cell[None].to(DEVICE))


def test_what_a_specification_may_say():
    with pytest.raises(UserError, match="backend='gpu' is not known: use cpu or device"):
        load_potential("student:water?backend=gpu", WATER)
    with pytest.raises(UserError, match="'charge=1' is no option of it: it has backend"):
        load_potential("student:water?charge=1", WATER)
    assert isinstance(load_potential("student:water?backend=cpu", WATER), Student)
    with pytest.raises(UserError, match="C"):
        load_potential("student:water?backend=device", [6, 1, 1])


def test_a_device_that_is_too_small_says_so(water, monkeypatch):
    numbers, x, cell = water
    _, device = both(numbers, **LOCAL)

    def update(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device.near, "update", update)
    with pytest.raises(UserError, match="384 atoms in one call are too many for device="):
        device(x.expand(2, *x.shape), cell)


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(neighbor_matrix, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="nvalchemi-toolkit-ops, which is not installed: pip"):
        load_potential("student:water?backend=device", WATER)


def test_where_options_mean_nothing_they_are_refused():
    with pytest.raises(UserError, match=r"'water.backend=device' is neither a file nor a packaged"):
        find_student("water?backend=device")


@pytest.mark.parametrize("options", [PASSING, DIRECT], ids=["passing", "direct"])
def test_its_forces_can_be_pulled_back(water, options):
    numbers, x, cell = water
    u = torch.randn(x.shape, dtype=torch.float64, generator=torch.manual_seed(3))
    cpu, device = both(numbers, **options)
    cpu(x, cell)
    expected = reference_pull(cpu.model, cpu._graph(x.numpy()), len(numbers), (), [])(u)[0]
    found = device.linearized(x, cell, ()).pull(u)[0]
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
