"""What a temperature is divided by: exact numbers for systems small enough to count."""

import numpy as np
import pytest
from scipy.stats import chi2

from integrators.degrees_of_freedom import hottest_by_chance, of_atoms, of_groups

H, C, OX, CL, AR, U = 1.008, 12.011, 15.999, 35.45, 39.95, 238.03
HCL, WATER, METHANE = [H, CL], [OX, H, H], [C, H, H, H, H]
CASES = {
    "HCl": (HCL, {}, {"all": 3, "H": 3 * CL / (H + CL), "heavy": 3 * H / (H + CL)}),
    "HCl, free": (HCL, {"fixcom": False}, {"all": 6, "H": 3, "heavy": 3}),
    "water": (WATER, {}, {"all": 6, "H": 6 - 6 * H / 18.015, "heavy": 3 - 3 * OX / 18.015}),
    "methane": (METHANE, {}, {"all": 12, "H": 12 - 12 * H / 16.043, "heavy": 12 * H / 16.043}),
    "argon": ([AR] * 4, {}, {"all": 9, "heavy": 9}),
    "hydrogen": ([H] * 2, {}, {"all": 3, "H": 3}),
    "one atom": ([AR], {}, {}),
    "one atom, free": ([AR], {"fixcom": False}, {"all": 3, "heavy": 3}),
    "one atom of four beads": ([AR], {"beads": 4}, {"all": 9, "heavy": 9}),
    # of the beads, only the centroid has lost its centre of mass
    "HCl of four beads": (
        HCL,
        {"beads": 4},
        {"all": 21, "H": 12 - 3 * H / (H + CL), "heavy": 12 - 3 * CL / (H + CL)},
    ),
    # i-PI leaves the centre of mass alone where atoms are held
    "water, oxygen held": (WATER, {"held": [0, 1, 2]}, {"all": 6, "H": 6}),
    "water of four beads, a hydrogen held": (
        WATER,
        {"held": [3, 4, 5], "beads": 4},
        {"all": 24, "H": 12, "heavy": 12},
    ),
    "one coordinate held": (WATER, {"held": [1]}, {"all": 8, "H": 6, "heavy": 2}),
    "all held": (HCL, {"held": range(6)}, {}),
    "the lightest beside the heaviest": (
        [H, U],
        {},
        {"all": 3, "H": 3 * U / (H + U), "heavy": 3 * H / (H + U)},
    ),
}


def count(masses, *, held=(), beads=1, fixcom=True):
    masses = np.array(masses)
    hydrogen = masses < 2
    groups = {"all": np.ones_like(hydrogen), "H": hydrogen, "heavy": ~hydrogen}
    moves = np.ones(3 * len(masses), bool)
    moves[list(held)] = False
    each = of_atoms(masses, moves.reshape(-1, 3), beads=beads, fixcom=fixcom)
    return of_groups(groups, each)


@pytest.mark.parametrize("case", CASES)
def test_every_group_has_what_is_left_to_it(case):
    masses, options, expected = CASES[case]
    assert count(masses, **options) == pytest.approx(expected, rel=1e-12)


def test_momenta_without_their_centre_of_mass_have_these():
    masses = np.array(METHANE)
    rng = np.random.default_rng(1)
    p = rng.normal(size=(100_000, 5, 3)) * np.sqrt(masses)[:, None]  # kT = 1
    p -= p.sum(axis=1, keepdims=True) * (masses / masses.sum())[:, None]
    twice_kinetic = (p**2).sum(axis=2) / masses
    found = {"all": twice_kinetic.sum(1), "H": twice_kinetic[:, 1:].sum(1)}
    found["heavy"] = twice_kinetic[:, 0]
    means = {name: values.mean() for name, values in found.items()}
    assert means == pytest.approx(count(METHANE), rel=0.01)


@pytest.mark.parametrize("degrees", [2.9, 3, 6, 9, 384])
def test_a_temperature_beyond_all_chance(degrees):
    bound = hottest_by_chance(degrees)
    assert 0 < chi2.sf(bound * degrees, degrees) < 1e-13
    # and no further than it must be
    assert chi2.sf(0.6 * bound * degrees, degrees) > 1e-30
