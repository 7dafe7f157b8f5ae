import numpy as np
import pytest

from integrators.hmr import repartition_hydrogen_mass

WATER = np.array([8, 1, 1]), np.array([15.999, 1.008, 1.008]), [(0, 1), (2, 0)]
METHANE = np.array([6, 1, 1, 1, 1]), np.array([12.011] + [1.008] * 4), [(0, k) for k in range(1, 5)]


def test_water_keeps_its_mass():
    numbers, masses, bonds = WATER
    new = repartition_hydrogen_mass(numbers, masses, bonds, hydrogen_mass=4.0)
    np.testing.assert_allclose(new, [10.015, 4.0, 4.0])
    assert new.sum() == pytest.approx(masses.sum())
    assert masses[0] == 15.999


def test_bonds_between_heavy_atoms_do_not_matter_and_methyl_is_allowed():
    numbers = np.array([6, 6, 1, 1, 1])
    masses = np.array([12.011, 12.011, 1.008, 1.008, 1.008])
    new = repartition_hydrogen_mass(numbers, masses, [(0, 1), (1, 2), (1, 3), (1, 4)])
    np.testing.assert_allclose(new, [12.011, 3.035, 4, 4, 4])


@pytest.mark.parametrize(
    ("case", "hydrogen_mass", "message"),
    [
        (METHANE, 4.0, "heavy atom 0 with 0.043 Da"),
        (METHANE, 5.0, "heavy atom 0 with -3.96 Da"),
        (WATER, 0.5, "hydrogens heavier"),
        ((WATER[0], WATER[1], [(0, 1)]), 4.0, "hydrogen 2 is bonded to 0 heavy atoms"),
        ((WATER[0], WATER[1], [(0, 1), (1, 2)]), 4.0, "hydrogen 2 is bonded to 0"),
        (
            (np.array([8, 8, 1]), np.array([16.0, 16.0, 1.0]), [(0, 2), (1, 2)]),
            4.0,
            "hydrogen 2 is bonded to 2",
        ),
        ((WATER[0], WATER[1], [(0, 7)]), 4.0, "outside 0..2"),
        ((WATER[0], WATER[1][:2], []), 4.0, "need \\(N,\\)"),
    ],
)
def test_bad_input_is_refused(case, hydrogen_mass, message):
    with pytest.raises(ValueError, match=message):
        repartition_hydrogen_mass(*case, hydrogen_mass=hydrogen_mass)
