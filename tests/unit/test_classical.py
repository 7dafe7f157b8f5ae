"""Classical models: energies by hand and from other codes, derivatives, batches, bad input."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones

from mts_driver.potentials.classical.forms import FORMS
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.pair_models import PairModel, lennard_jones
from mts_driver.potentials.classical.water import flexible_water, like_lennard_jones

NO_CELL = torch.zeros(3, 3, dtype=torch.float64)
SKEW_A = torch.tensor([[13.0, 0, 0], [2.5, 13.5, 0], [-1.5, 3.0, 14.0]], dtype=torch.float64)
WATERS_AND_OXYGEN = [8, 1, 1] * 6 + [8, 8] * 2


def scattered(atoms, *, spread_A, seed=0):
    """A cubic grid of atoms, each moved at random."""
    generator = torch.Generator().manual_seed(seed)
    side = math.ceil(atoms ** (1 / 3))
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)[:atoms]
    noise = torch.rand(atoms, 3, generator=generator, dtype=torch.float64) - 0.5
    return spread_A * (grid + 0.6 * noise)


def solution(seed=0):
    """Six waters and two O₂ on a grid, bent and stretched, some across the borders of the cell."""
    generator = torch.Generator().manual_seed(seed)
    centers = scattered(8, spread_A=4.5, seed=seed)
    offsets = torch.tensor([[0.0, 0, 0], [0.8, 0.6, 0], [-0.7, 0.6, 0.2]], dtype=torch.float64)
    x = torch.cat(
        [center + (offsets if k < 6 else 1.4 * offsets[:2]) for k, center in enumerate(centers)]
    )
    x = x + 0.1 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    x[3:6] -= SKEW_A[0]
    x[7] += SKEW_A[1] - SKEW_A[2]
    return x


def pair_model(form, atoms=8, **options):
    values, shared = like_lennard_jones(form, 0.01, 3.4)
    return PairModel(form, atoms, {**values, **shared}, cutoff_A=6.2, **options)


def solution_model(form):
    return MolecularForceField(
        flexible_water(form=form, cutoff_A=6.0, oxygen=True), WATERS_AND_OXYGEN
    )


MODELS = {
    **{form: (lambda form=form: (pair_model(form), scattered(8, spread_A=3.6))) for form in FORMS},
    **{f"water, {form}": (lambda form=form: (solution_model(form), solution())) for form in FORMS},
}


@pytest.fixture(params=MODELS)
def case(request):
    return MODELS[request.param]()


def test_energies_are_those_of_ase():
    x = scattered(20, spread_A=3.7)
    atoms = Atoms("Ar20", x.numpy(), calculator=LennardJones(sigma=3.4, epsilon=0.01, rc=1e4))
    found = lennard_jones(20, epsilon_eV=0.01, sigma_A=3.4, cutoff_A=99.0, switch_A=90.0)(
        x, NO_CELL
    )
    assert found.energy.item() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=1e-9, atol=1e-14)


def test_forces_and_virial_are_derivatives_of_the_energy(case):
    model, x = case
    found, step = model(x, SKEW_A), 1e-4

    def energy(strain, shift=0.0):
        deform = torch.eye(3, dtype=torch.float64) + strain
        with torch.no_grad():
            return model.energy((x + shift) @ deform, SKEW_A @ deform).item()

    def derivative(function):
        """Of fourth order in the step."""
        near, far = (function(n * step) - function(-n * step) for n in (1, 2))
        return (8 * near - far) / (12 * step)

    generator = torch.Generator().manual_seed(2)
    for _ in range(2):
        along = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        slope = derivative(lambda t, along=along: energy(0.0, t * along))
        assert slope == pytest.approx(-(found.forces * along).sum().item(), rel=1e-8)
        along = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        slope = derivative(lambda t, along=along: energy(t * along))
        assert slope == pytest.approx(-(found.virial * along).sum().item(), rel=1e-8)


def test_pulled_back_is_what_automatic_differentiation_gives(case):
    model, x = case
    parameters = list(model.parameters())
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tracked = x.clone().requires_grad_()
    graphed = model(tracked, SKEW_A)
    expected = torch.autograd.grad(graphed.forces, (tracked, *parameters), along)
    evaluation, pull = model.linearized(x, SKEW_A, parameters)
    for mine, other, plain in zip(evaluation, graphed, model(x, SKEW_A), strict=True):
        torch.testing.assert_close(mine, other.detach(), rtol=1e-12, atol=1e-12)
        assert torch.equal(mine, plain) and not plain.requires_grad
    for _ in range(2):  # it may be called again
        by_x, by_parameter = pull(along)
        torch.testing.assert_close(by_x, expected[0], rtol=1e-8, atol=1e-10)
        for mine, other in zip(by_parameter, expected[1:], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-12)
