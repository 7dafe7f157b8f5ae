"""The fast SO3LR gives what the packaged calculator gives, and what its own derivatives say."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import read
from on_device import plain_attention

from mts_driver.errors import UserError
from mts_driver.potentials import load_potential

pytest.importorskip("so3krates_torch")


def packaged(atoms, dtype):
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    atoms = atoms.copy()
    atoms.calc = SO3LRCalculator(default_dtype=dtype, compute_stress=bool(atoms.pbc.any()))
    default = torch.get_default_dtype()
    try:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        virial = -atoms.get_stress(voigt=False) * atoms.get_volume() if atoms.pbc.any() else None
    finally:
        torch.set_default_dtype(default)
    return energy, forces, virial


def ours(atoms, dtype, spec="so3lr"):
    potential = load_potential(spec, atoms.numbers, dtype=dtype)
    cell = torch.tensor(np.array(atoms.cell) * atoms.pbc[:, None])
    return potential(torch.tensor(atoms.positions), cell)


@pytest.fixture(scope="module")
def alanine_dipeptide(structures):
    whole = read(structures / "aladip_water_npt.extxyz")
    atoms = whole[:22]
    assert sorted(set(atoms.get_chemical_symbols())) == ["C", "H", "N", "O"]
    atoms.pbc = False
    atoms.cell = None
    return atoms


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-8)])
@pytest.mark.parametrize("system", ["water", "ethanol", "alanine dipeptide"])
def test_equal_to_the_packaged_calculator(system, dtype, tolerance, structures, request):
    if system == "water":
        atoms = read(structures / "water64_packmol.extxyz")
    elif system == "ethanol":
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, seed=1)
    else:
        atoms = request.getfixturevalue("alanine_dipeptide")
    energy, forces, virial = packaged(atoms, dtype)
    found = ours(atoms, dtype)
    np.testing.assert_allclose(found.forces, forces, atol=tolerance)
    # the packaged model sums |E| of some 10⁴ eV in float32; ours doesn't
    assert float(found.energy) == pytest.approx(energy, abs=0.05 if dtype == "float32" else 1e-7)
    if virial is not None:
        np.testing.assert_allclose(found.virial, virial, atol=1e2 * tolerance)


def test_forces_and_virial_are_derivatives_of_the_energy(structures):
    atoms = read(structures / "water64_packmol.extxyz")
    potential = load_potential("so3lr", atoms.numbers, dtype="float64")
    x, cell = torch.tensor(atoms.positions), torch.tensor(np.array(atoms.cell))
    found, h = potential(x, cell), 1e-4
    for atom, axis in ((0, 0), (100, 2)):
        energies = []
        for sign in (1, -1):
            moved = x.clone()
            moved[atom, axis] += sign * h
            energies.append(float(potential(moved, cell).energy))
        slope = -(energies[0] - energies[1]) / (2 * h)
        assert slope == pytest.approx(float(found.forces[atom, axis]), abs=2e-6)
    for a, b in ((0, 0), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=torch.float64)
            strain[a, b] += sign * h
            energies.append(float(potential(x @ strain, cell @ strain).energy))
        slope = -(energies[0] - energies[1]) / (2 * h)
        assert slope == pytest.approx(float(found.virial[a, b]), abs=2e-4)


def test_replicas_do_not_see_each_other(structures):
    atoms = read(structures / "water64_packmol.extxyz")
    potential = load_potential("so3lr", atoms.numbers, dtype="float64")
    x, cell = torch.tensor(atoms.positions), torch.tensor(np.array(atoms.cell))
    both = torch.stack((x, x + 0.05 * torch.sin(x)))
    together = potential(both, torch.stack((cell, 1.01 * cell)))
    for k, own_cell in enumerate((cell, 1.01 * cell)):
        alone = potential(both[k], own_cell)
        torch.testing.assert_close(together.forces[k], alone.forces, atol=1e-9, rtol=0)
        torch.testing.assert_close(together.energy[k], alone.energy, atol=1e-8, rtol=0)
        torch.testing.assert_close(together.virial[k], alone.virial, atol=1e-7, rtol=0)


def test_fused_kernels_equal_the_torch_reference():
    atoms = molecule("CH3CH2OH")
    potential = load_potential("so3lr", atoms.numbers, dtype="float64")
    x, cell = torch.tensor(atoms.positions), torch.zeros(3, 3, dtype=torch.float64)
    fused = potential(x, cell)
    potential._network.attention = plain_attention(torch.float64)
    potential._long_range = potential._long_range.reference
    plain = potential(x, cell)
    torch.testing.assert_close(fused.forces, plain.forces, atol=1e-8, rtol=0)
    torch.testing.assert_close(fused.energy, plain.energy, atol=1e-8, rtol=0)


def test_potentials_of_one_precision_share_their_weights_and_no_other():
    atoms = molecule("CH3CH2OH")
    first = load_potential("so3lr", atoms.numbers, dtype="float64")
    x, cell = torch.tensor(atoms.positions), torch.zeros(3, 3, dtype=torch.float64)
    before = first(x, cell).forces
    single = load_potential("so3lr", [8, 1, 1], dtype="float32")
    second = load_potential("so3lr?charge=1", [8, 1, 1, 1], dtype="float64")
    assert second._network.layers is first._network.layers is not single._network.layers
    assert second._network.attention[0] is first._network.attention[0]
    torch.testing.assert_close(first(x, cell).forces, before, rtol=0, atol=0)


def test_total_charge():
    """A neutral singlet has no charge embedding; an ion has one, and other forces."""
    atoms = molecule("CH3COOH")[:-1]
    neutral, ion = ours(atoms, "float64"), ours(atoms, "float64", "so3lr?charge=-1")
    assert float((neutral.forces - ion.forces).abs().max()) > 0.1
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    atoms.info["charge"] = -1.0
    atoms.calc = SO3LRCalculator(default_dtype="float64")
    np.testing.assert_allclose(ion.forces, atoms.get_forces(), atol=1e-8)
    torch.set_default_dtype(torch.float32)


def test_unknown_element():
    with pytest.raises(UserError, match=r"element Si .* SO3LR knows only H, C, N, O, F, P, S, Cl"):
        load_potential("so3lr", [14, 1, 1, 1, 1])


@pytest.mark.parametrize("spec", ["so3lr?charge=one", "so3lr?spin=1", "so4lr", "student:", "ase:"])
def test_unknown_specification(spec):
    with pytest.raises(UserError):
        load_potential(spec, [1, 1, 8])
