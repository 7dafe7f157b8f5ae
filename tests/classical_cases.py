"""Small systems for each classical model, and derivatives by differences."""

import math

import torch
from ase.build import bulk

from mts_driver.potentials.classical.forms import FORMS
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.pair_models import PairModel
from mts_driver.potentials.classical.springs import HarmonicWells, Springs
from mts_driver.potentials.classical.stillinger_weber import SILICON, StillingerWeber
from mts_driver.potentials.classical.water import flexible_water, like_lennard_jones

NO_CELL = torch.zeros(3, 3, dtype=torch.float64)
SKEW_A = torch.tensor([[13.0, 0, 0], [2.5, 13.5, 0], [-1.5, 3.0, 14.0]], dtype=torch.float64)
SOLUTION = [8, 1, 1] * 6 + [8, 8] * 2
"""Six waters and two O₂."""


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def scattered(atoms, *, spread_A, seed=0):
    """A cubic grid of atoms, each moved at random."""
    side = math.ceil(atoms ** (1 / 3))
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)[:atoms]
    return spread_A * (grid + 0.2 * noise(atoms, 3, seed=seed).clamp(-1.5, 1.5))


def solution(seed=0):
    """The molecules on a grid, bent and stretched, some across the borders of the cell."""
    centers = scattered(8, spread_A=4.5, seed=seed)
    offsets = torch.tensor([[0.0, 0, 0], [0.8, 0.6, 0], [-0.7, 0.6, 0.2]], dtype=torch.float64)
    x = torch.cat(
        [center + (offsets if k < 6 else 1.4 * offsets[:2]) for k, center in enumerate(centers)]
    )
    x = x + 0.1 * noise(*x.shape, seed=seed)
    x[3:6] -= SKEW_A[0]
    x[7] += SKEW_A[1] - SKEW_A[2]
    return x


def pair_model(form, atoms=8, **options):
    values, shared = like_lennard_jones(form, 0.01, 3.4)
    return PairModel(form, [18] * atoms, {**values, **shared}, **{"cutoff_A": 6.2, **options})


def solution_model(form="lennard-jones"):
    # no distance of `solution` is where third derivatives jump, at either end of the switch
    table = flexible_water(form=form, cutoff_A=5.7, oxygen=True)
    return MolecularForceField(table, SOLUTION)


def silicon():
    """Two cells, rattled; with an exponent of zero and a wide reach no derivative is left out."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.2, seed=3)
    model = StillingerWeber(atoms.numbers, {**SILICON, "a": 2.1})
    return model, torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)


def springs():
    x = scattered(8, spread_A=3.0)
    return Springs(8, [(0, 1), (2, 5), (7, 3)], spring_k_eV_A2=2.0, spring_length_A=2.5), x, SKEW_A


def wells():
    x = scattered(8, spread_A=3.0)
    return HarmonicWells(x + 0.1 * noise(8, 3, seed=5), well_k_eV_A2=0.7), x, SKEW_A


CASES = {
    **{
        form: (lambda form=form: (pair_model(form), scattered(8, spread_A=3.6), SKEW_A))
        for form in FORMS
    },
    **{
        f"water with {form}": (lambda form=form: (solution_model(form), solution(), SKEW_A))
        for form in FORMS
    },
    "silicon": silicon,
    "springs": springs,
    "wells": wells,
}
"""Make a model, positions and a cell."""


def derivative(function, step):
    """Of a function of one number at 0, with an error of fourth order in the step."""
    near, far = (function(n * step) - function(-n * step) for n in (1, 2))
    return (8.0 * near - far) / (12.0 * step)
