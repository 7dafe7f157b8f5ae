"""Bonds, stretch curves and force constants against the real teacher and against made-up curves."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import read

from integrators.state import Evaluation
from mts_driver.potentials import load_potential
from mts_driver.structures.bonds import Molecules, find_bonds
from mts_driver.validation.force_constants import ForceConstants, bond_force_constants
from mts_driver.validation.stretch import StretchCurve, stretch_curves, unsafe_lengths


def so3lr(atoms):
    pytest.importorskip("so3krates_torch")
    return load_potential("so3lr", atoms.numbers)


class Scaled:
    """A student with all of the teacher's forces and energies times a factor."""

    def __init__(self, teacher, factor):
        self.teacher, self.factor = teacher, factor

    def __call__(self, positions, cell):
        return Evaluation(*(self.factor * part for part in self.teacher(positions, cell)))


def test_bonds_of_ethanol_and_their_smaller_sides():
    atoms = molecule("CH3CH2OH")
    bonds = find_bonds(atoms)
    kinds = sorted(b.kind for b in bonds)
    assert kinds == ["C–C", *["C–H"] * 5, "C–O", "O–H"]
    assert all(atoms.symbols[b.moving] == "H" for b in bonds if b.to_hydrogen)
    molecules = Molecules(bonds, len(atoms))
    for bond in bonds:
        cut, side = molecules.smaller_side(bond)
        assert cut.moving in side and cut.fixed not in side
        symbols = "".join(sorted(atoms.symbols[side]))
        assert symbols == {"C–C": "CHHH", "C–O": "HO", "C–H": "H", "O–H": "H"}[bond.kind]


def test_rings_are_not_cut():
    atoms = molecule("C6H6")
    bonds = find_bonds(atoms)
    molecules = Molecules(bonds, len(atoms))
    cut = [molecules.smaller_side(b) for b in bonds]
    assert sum(c is None for c in cut) == 6 and len(bonds) == 12


def test_curves_of_methanol_are_the_slope_of_the_energy():
    atoms = molecule("CH3OH")
    teacher = so3lr(atoms)
    curves = stretch_curves(atoms, teacher, Scaled(teacher, 0.9), points=40)
    assert [c.bond for c in curves] == ["C–H", "O–H", "C–O"]
    for curve in curves:
        slope = -np.gradient(curve.teacher_eV, curve.lengths_A, edge_order=2)
        middle = np.abs(curve.teacher_eV_A) < 8
        np.testing.assert_allclose(slope[middle], curve.teacher_eV_A[middle], atol=0.3)
        np.testing.assert_allclose(curve.student_eV_A, 0.9 * curve.teacher_eV_A, atol=1e-3)
        assert curve.teacher_eV.min() == 0.0
        lowest = curve.lengths_A[np.argmin(curve.teacher_eV)]
        assert lowest == pytest.approx(atoms.get_distance(*curve.atoms), abs=0.04)
        assert len(unsafe_lengths(curve)) == 0
    oh = next(c for c in curves if c.bond == "O–H")
    assert (oh.lengths_A[0], oh.lengths_A[-1]) == (0.7, 2.0)


def curve(student):
    lengths = np.linspace(0.7, 2.0, 27)
    decay = np.exp(-2.2 * (lengths - 0.97))
    return StretchCurve(
        bond="O–H",
        atoms=(0, 1),
        lengths_A=lengths,
        teacher_eV_A=-20.0 * decay * (1 - decay),
        student_eV_A=student(lengths, -20.0 * decay * (1 - decay)),
        teacher_eV=4.5 * (1 - decay) ** 2,
        student_eV=4.5 * (1 - decay) ** 2,
    )


def test_holes_are_found():
    assert len(unsafe_lengths(curve(lambda r, f: f))) == 0
    # a minimum that is off by 0.005 Å is no hole
    assert len(unsafe_lengths(curve(lambda r, f: f + 0.2))) == 0
    long = unsafe_lengths(curve(lambda r, f: np.where(r > 1.43, 1.0, f)))
    np.testing.assert_allclose(long, np.arange(1.45, 2.01, 0.05))
    short = unsafe_lengths(curve(lambda r, f: np.where(r < 0.82, -1.0, f)))
    np.testing.assert_allclose(short, [0.7, 0.75, 0.8])
    # pulling at a long bond where the teacher pulls less holds it together
    assert len(unsafe_lengths(curve(lambda r, f: f - 2.0 * (r > 1.5)))) == 0
    broken = curve(lambda r, f: np.where(r > 1.93, np.nan, f))
    np.testing.assert_allclose(unsafe_lengths(broken), [1.95, 2.0])
    assert broken.as_dict()["student_eV_A"][-1] is None


def test_force_constants_of_molecules():
    frames = [molecule("CH3CH2OH"), molecule("C6H6")]
    found = []
    for atoms in frames:
        teacher = so3lr(atoms)
        rng = np.random.default_rng(0)
        found.append(bond_force_constants(atoms, teacher, Scaled(teacher, 0.97), rng=rng))
    assert [len(f.kinds) for f in found] == [8, 12]
    both = ForceConstants.joined(found)
    assert both.to_hydrogen.sum() == 12
    for chosen in (both.to_hydrogen, ~both.to_hydrogen):
        error = both.error(chosen)
        assert error["mean"] == pytest.approx(-0.03, abs=1e-3)
        assert error["rms"] == pytest.approx(0.03, abs=2e-3)
    constants = {k: e["teacher_mean_eV_A2"] for k, e in both.errors_by_kind().items()}
    # the hydroxyl stretch of about 3700 1/cm and the methyl one of about 3000
    assert 42 < constants["O–H"] < 56 and 28 < constants["C–H"] < 36
    assert both.error(np.zeros(20, bool)) is None
    assert ForceConstants.joined([]).errors_by_kind() == {}


def test_bonds_displaced_together_are_far_apart(structures):
    atoms = read(structures / "water216_packmol.extxyz")
    sizes = []

    def springs(positions, cell):
        """The first O-H bond of every molecule."""
        moved = np.flatnonzero(np.abs(positions.numpy() - atoms.positions).max(1) > 1e-6)
        sizes.append(len(moved))
        for k in range(1, len(moved)):
            assert atoms.get_distances(moved[k], moved[:k], mic=True).min() > 8.0
        x = positions.detach().requires_grad_()
        with torch.enable_grad():
            d = x[1::3] - x[::3]
            d = d - cell.diagonal() * (d / cell.diagonal()).round()
            energy = 24.0 * (d.norm(dim=-1) - 0.97).square().sum()
            (gradient,) = torch.autograd.grad(energy, x)
        return Evaluation(energy.detach(), -gradient, torch.zeros(3, 3))

    rng = np.random.default_rng(1)
    found = bond_force_constants(atoms, springs, springs, max_bonds=40, rng=rng)
    assert len(found.kinds) == 40 and max(sizes) >= 3
    first = found.teacher_eV_A2 > 1.0
    assert 10 < first.sum() < 30
    np.testing.assert_allclose(found.teacher_eV_A2[first], 48.0, rtol=1e-3)


def test_a_solute_does_not_drown_in_water(structures):
    atoms = read(structures / "ethanol_water200.extxyz")

    def nothing(positions, cell):
        return Evaluation(positions.sum() * 0, positions * 0, torch.zeros(3, 3))

    found = bond_force_constants(
        atoms, nothing, nothing, max_bonds=20, rng=np.random.default_rng(0)
    )
    kinds, counts = np.unique(found.kinds, return_counts=True)
    assert dict(zip(kinds, counts, strict=True)) == {"C–C": 1, "C–H": 5, "C–O": 1, "O–H": 13}
