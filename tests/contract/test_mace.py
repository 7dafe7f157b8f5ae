"""MACE as an ASE calculator, a small model with random weights; alone and on ranks."""

from functools import cache

import numpy as np
import pytest
import torch
from test_other_teachers import rattled, tensors
from thread_ranks import on_ranks

from mts_driver.potentials import load_potential

# not in the environment of the tests: it needs e3nn 0.4.4, SevenNet needs a later one
mace = pytest.importorskip("mace", reason="mace-torch is not installed: pip install mace-torch")

CUTOFF_A, LAYERS = 2.5, 2
SPEC = f"ase:test_mace:calculator?receptive_field_A={CUTOFF_A * LAYERS}"


def calculator():
    from mace.calculators import MACECalculator

    return MACECalculator(models=[model()], device="cpu", default_dtype="float64")


@cache
def model():
    """Two layers of messages, with the same weights for all threads."""
    from e3nn import o3
    from mace.modules import ScaleShiftMACE, interaction_classes

    torch.manual_seed(1)
    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    made = ScaleShiftMACE(
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.1,
        r_max=CUTOFF_A,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=LAYERS,
        num_elements=3,
        hidden_irreps=o3.Irreps("8x0e + 8x1o"),
        MLP_irreps=o3.Irreps("8x0e"),
        atomic_energies=np.array([-13.6, -1030.0, -2040.0]),
        avg_num_neighbors=8.0,
        atomic_numbers=[1, 6, 8],
        correlation=2,
        gate=torch.nn.functional.silu,
    )
    return made.double()


@pytest.fixture(autouse=True)
def default_dtype():
    """Keep to this file what a calculator of MACE sets for the whole process."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("system", ["CH3CH2OH", "water box"])
def test_forces_and_virial_are_derivatives_of_the_energy(system):
    atoms = rattled(system)
    potential = load_potential(SPEC, atoms.numbers.tolist())
    x, cell = tensors(atoms)
    found = potential(x, cell)
    along = torch.tensor(np.random.default_rng(1).normal(size=x.shape))
    h = 1e-4

    def slope(moved):
        plus, minus = (potential(*moved(sign * h)).energy.item() for sign in (1, -1))
        return (plus - minus) / (2 * h)

    expected = (found.forces * along).sum().item()
    assert abs(expected) > 1e-2
    assert -slope(lambda h: (x + h * along, cell)) == pytest.approx(expected, rel=1e-5)
    if system == "water box":
        assert potential.has_virial
        bend = torch.zeros(3, 3, dtype=torch.float64)
        bend[0, 1] = bend[1, 0] = 0.5
        sheared = -slope(lambda h: (x + h * x @ bend, cell + h * cell @ bend))
        assert sheared == pytest.approx(found.virial[0, 1].item(), rel=1e-4, abs=1e-6)


def test_on_ranks_it_is_what_it_is_alone():
    """With energies of atoms that are those of the whole, free atoms included."""
    box = rattled("water box").repeat((5, 1, 1))
    box.rattle(0.02, seed=3)
    x, cell = tensors(box)
    alone = load_potential(SPEC, box.numbers)(x, cell)

    def work(ranks):
        return load_potential(SPEC, box.numbers, ranks=ranks)(x, cell)

    for found in on_ranks(3, work):
        assert found.energy.item() == pytest.approx(alone.energy.item(), rel=1e-12)
        np.testing.assert_allclose(found.forces, alone.forces, rtol=0, atol=1e-9)
