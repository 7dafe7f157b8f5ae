"""Densities of states of vibrations that are known."""

import numpy as np
import pytest

from mts_driver.analysis.vdos import autocorrelation, density_of_states
from mts_driver.errors import UserError
from mts_driver.units import LIGHT_CM_FS

MASSES = np.array([1.0, 16.0])


def vibrations(wavenumbers, count=4000, interval_fs=1.0, seed=0):
    """Each atom at one frequency with the same kinetic energy."""
    t = interval_fs * np.arange(count)
    phase = np.random.default_rng(seed).uniform(0, 6.28, (len(wavenumbers), 3))
    omega = 2.0 * np.pi * LIGHT_CM_FS * np.array(wavenumbers)
    v = np.cos(omega[:, None] * t[:, None, None] + phase)
    return v / np.sqrt(MASSES)[:, None]


def states(parts, **more):
    return density_of_states(parts, MASSES, **{"interval_fs": 1.0, "longest_fs": 2000.0} | more)


def test_lines_are_where_they_should_be_and_each_atom_counts_alike():
    found = states([vibrations([3700.0, 1600.0])])
    np.testing.assert_allclose(np.sort(found.peaks_cm()), [1600.0, 3700.0], atol=0.5)
    assert np.trapezoid(found.density, found.wavenumbers_cm) == pytest.approx(1.0)
    low = found.wavenumbers_cm < 2500.0
    share = np.trapezoid(found.density[low], found.wavenumbers_cm[low])
    assert share == pytest.approx(0.5, abs=0.01)


def test_the_overlap_is_what_two_have_in_common():
    one, other = states([vibrations([3700.0, 1600.0])]), states([vibrations([3700.0, 1000.0])])
    assert one.overlap(one) == pytest.approx(1.0)
    assert one.overlap(other) == pytest.approx(0.5, abs=0.01)


def test_several_parts_are_taken_and_short_ones_left_out():
    parts = [vibrations([3700.0, 1600.0], seed=k) for k in range(3)]
    found = states([*parts, vibrations([500.0, 500.0], count=100)])
    np.testing.assert_allclose(np.sort(found.peaks_cm()), [1600.0, 3700.0], atol=0.5)
    with pytest.raises(UserError, match=r"longest_fs=2000: the longest .* has 100 fs"):
        states([vibrations([500.0, 500.0], count=100)])


def test_the_autocorrelation_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(n, 2, 3)) for n in (50, 80, 5)]
    found = autocorrelation(parts, MASSES, longest=10)
    sums = np.zeros((2, 11))
    for v in parts[:2]:
        for lag in range(11):
            pairs = len(v) - lag
            sums[0, lag] += (MASSES[:, None] * v[:pairs] * v[lag:]).sum()
            sums[1, lag] += pairs
    expected = sums[0] / sums[1]
    np.testing.assert_allclose(found, expected / expected[0], atol=1e-12)
