"""Teachers other than SO3LR, as the ASE calculators that their packages bring with weights."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mts_driver.errors import UserError
from mts_driver.potentials import load_potential

XTB = "ase:tblite.ase:TBLite?method=GFN1-xTB&verbosity=0"
SEVENNET = "ase:sevenn.calculator:SevenNetCalculator?model=7net-0"


@pytest.fixture(params=["tblite", "sevenn"])
def teacher(request):
    """Its specification, the displacement (Å) for its precision, and the error allowed (eV/Å)."""
    pytest.importorskip(request.param)
    # SevenNet works in float32: a long difference, and the error of its second order
    return {"tblite": (XTB, 1e-3, 1e-4), "sevenn": (SEVENNET, 1e-2, 5e-3)}[request.param]


def water_box():
    """Eight water molecules, turned at random, on a lattice with the density of the liquid."""
    rng = np.random.default_rng(4)
    side = 3.1
    box = Atoms()
    for corner in np.ndindex(2, 2, 2):
        one = molecule("H2O")
        one.euler_rotate(*rng.uniform(0, 360, 3), center="COM")
        one.translate(side * np.array(corner) - one.positions[0])
        box += one
    box.set_cell([2 * side] * 3)
    box.pbc = True
    box.rattle(0.03, seed=1)
    return box


def rattled(name):
    if name == "water box":
        return water_box()
    atoms = molecule(name)
    atoms.rattle(0.05, seed=2)
    return atoms


def tensors(atoms):
    return torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)


@pytest.mark.parametrize("system", ["CH3CH2OH", "H2O", "water box"])
def test_forces_and_virial_are_derivatives_of_the_energy(teacher, system):
    spec, step, allowed = teacher
    atoms = rattled(system)
    potential = load_potential(spec, atoms.numbers.tolist())
    x, cell = tensors(atoms)
    found = potential(x, cell)
    assert found.energy.dtype == found.forces.dtype == torch.float64
    direction = torch.tensor(np.random.default_rng(1).normal(size=x.shape))
    direction /= direction.norm()

    def slope(displaced):
        plus, minus = (potential(*displaced(sign * step)).energy.item() for sign in (1, -1))
        return (plus - minus) / (2 * step)

    along = -slope(lambda h: (x + h * direction, cell))
    assert along == pytest.approx((found.forces * direction).sum().item(), abs=allowed)
    if not atoms.pbc.any():
        assert (found.virial == 0).all()
        return
    # a strain of h / L moves an atom by h at most
    length = cell[0, 0].item()
    stretch = torch.zeros(3, 3, dtype=torch.float64)
    stretch[0, 1] = stretch[1, 0] = 1 / length
    sheared = -slope(lambda h: (x + h * x @ stretch, cell + h * cell @ stretch)) * length / 2
    assert sheared == pytest.approx(found.virial[0, 1].item(), abs=20 * allowed)


def test_a_call_does_not_depend_on_the_calls_before(teacher):
    spec, *_ = teacher
    atoms = rattled("CH3CH2OH")
    potential = load_potential(spec, atoms.numbers.tolist())
    x, cell = tensors(atoms)
    first = potential(x, cell)
    potential(x + 0.1 * torch.sin(7 * x), cell)
    again = potential(x, cell)
    fresh = load_potential(spec, atoms.numbers.tolist())(x, cell)
    for other in (again, fresh):
        # xTB that goes on from its last density misses this by a factor of ten
        torch.testing.assert_close(other.forces, first.forces, rtol=0, atol=1e-5)


def test_a_frame_without_a_converged_field_is_an_error_that_spoils_nothing():
    pytest.importorskip("tblite")
    atoms = molecule("CH3CH2OH")
    potential = load_potential(XTB, atoms.numbers.tolist())
    x, cell = tensors(atoms)
    before = potential(x, cell)
    torn, lost = x.clone(), x.clone()
    torn[3, 0] += 30  # closed shells do not converge for a hydrogen 30 Å away
    lost[3, 0] = torch.nan
    for bad, reason in ((torn, "SCF not converged in 250 cycles"), (lost, "eigenvalue problem")):
        with pytest.raises(UserError, match=f"failed for 9 atoms of C, H, O: .*{reason}"):
            potential(bad, cell)
        # tblite ends the whole process if it is asked to go on from what a failure left
        torch.testing.assert_close(potential(x, cell).forces, before.forces, rtol=0, atol=1e-5)
