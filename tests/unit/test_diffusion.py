"""Diffusion coefficients of motion that is known."""

import math

import numpy as np
import pytest
from scipy import constants

from mts_driver.analysis.dynamics.diffusion import (
    diffusion,
    finite_size_term,
    water_viscosity_mPa_s,
)
from mts_driver.analysis.dynamics.mean_squares import straight_from
from mts_driver.analysis.trajectory import Trajectory, displacements

D, EDGE, FRAME_PS = 2.3, 12.4, 0.1
"""1e-5 cm²/s, Å, ps."""
GRID = EDGE / 4 * np.array(list(np.ndindex(4, 4, 4)))
IN_THE_FRAME_OF_ALL = 1 - 1 / len(GRID)
"""What is left of D in the frame of the centre of mass."""


def trajectory(moved, *, cell=None, symbol="He", stride=1):
    frames = len(moved)
    return Trajectory(
        np.array([symbol] * moved.shape[1]),
        stride * np.arange(frames),
        GRID[: moved.shape[1]] + moved,
        np.broadcast_to(EDGE * np.eye(3) if cell is None else cell, (frames, 3, 3)),
    )


def brownian(*, frames=100, seed=0, atoms=64, D=D):
    """<x²> = 2 D t along each axis; 1e-5 cm²/s are 0.1 Å²/ps."""
    steps = np.random.default_rng(seed).normal(size=(frames, atoms, 3))
    steps[0] = 0.0
    return np.cumsum(steps * math.sqrt(2 * 0.1 * D * FRAME_PS), axis=0)


def helium(moved, **more):
    found, why = diffusion(trajectory(moved, **more), step_ps=FRAME_PS)
    assert why is None and list(found) == ["He"]
    return found["He"]


def test_brownian_motion_has_its_coefficient_within_an_error_that_is_right():
    found = [helium(brownian(seed=seed)) for seed in range(6)]
    off = np.array([(one.D - D * IN_THE_FRAME_OF_ALL) / one.stderr for one in found])
    assert np.abs(off).max() < 3.0
    assert 0.3 < math.sqrt(np.mean(off**2)) < 1.7
    for one in found:
        assert one.interval[0] < one.D < one.interval[1]
        # in one step of each atom 6400 × 3 numbers are known, of which the offset takes most
        assert 0.017 < one.stderr / one.D < 0.026
        assert not one.warnings and one.count == len(GRID)


def test_the_push_of_a_thermostat_on_the_whole_system_is_no_diffusion():
    alone, pushed = brownian(seed=1), brownian(seed=1) + brownian(seed=2, atoms=1)
    # but for the noise of the sampling that the fit is made by
    assert abs(helium(pushed).D / helium(alone).D - 1) < 3e-3
    # whose own coefficient is kT / M γ in the frame of the box
    assert np.square(pushed[50:].mean(axis=1)).sum(axis=-1).mean() > 1.0


def test_flight_and_cages_and_short_runs_are_no_diffusion():
    rng = np.random.default_rng(4)
    flight = 0.01 * np.arange(100)[:, None, None] * rng.normal(size=(1, len(GRID), 3))
    # 2, but for what a short window and the frame of the whole take off it
    assert any("grows as t^2.00" in warning for warning in helium(flight).warnings)
    solid = 0.1 * rng.normal(size=(100, len(GRID), 3))
    assert any("a solid, or too short a run" in warning for warning in helium(solid).warnings)
    rattling = 0.3 * rng.normal(size=(60, 8, 3))
    few = helium(brownian(frames=60, atoms=8, seed=3) + rattling)
    (warning,) = [one for one in few.warnings if one.startswith("error")]
    percent = 100 * few.stderr / few.D
    assert percent > 10 and f"error {percent:.0f} %" in warning
    assert f"a run {(percent / 10) ** 2:.2g} times as long has 10 %" in warning


def test_a_run_that_changes_its_pace_has_an_error_that_says_so():
    slow, fast = brownian(frames=200, seed=5, D=0.8), brownian(frames=200, seed=6, D=3.2)
    found = helium(np.concatenate([slow, slow[-1] + fast]))
    assert found.halves[0] < 1.0 < 2.8 < found.halves[1]
    assert any("in the second half" in warning for warning in found.warnings)
    assert found.stderr == pytest.approx(0.5 * (found.halves[1] - found.halves[0]))
    assert found.interval[0] < 1.0 and found.interval[1] > 3.0


def test_a_crossing_from_flight_to_cage_is_not_where_a_line_begins():
    t = np.unique(np.geomspace(1, 5000, 70).round())
    # flight, a cage of 0.5 Å² and at last diffusion
    msd = 0.5 * (1 - np.exp(-((t / 3) ** 2))) + 0.01 * t
    start, exponent = straight_from(t, msd, 1e-4 * msd)
    assert exponent is None
    assert 0.9 < (np.log(msd[start + 10] / msd[start]) / np.log(t[start + 10] / t[start])) < 1.1
    assert t[start] > 100
    assert straight_from(t, t, 1e-4 * t) == (0, None)


# --- images


@pytest.mark.parametrize(
    "cell",
    [EDGE * np.eye(3), [[12.4, 0, 0], [6.0, 11.0, 0], [-3.0, 2.0, 14.0]]],
    ids=["cube", "sheared"],
)
def test_wrapped_is_unwrapped(cell):
    cell, moved = np.array(cell), 3 * brownian(frames=60)
    whole = trajectory(moved, cell=cell)
    inverse = np.linalg.inv(cell)
    wrapped = Trajectory(
        whole.symbols, whole.steps, (whole.positions @ inverse) % 1.0 @ cell, whole.cells
    )
    assert np.abs(wrapped.positions - whole.positions).max() > EDGE / 2
    np.testing.assert_allclose(displacements(wrapped), moved, atol=1e-9)
    np.testing.assert_allclose(displacements(whole), moved, atol=1e-9)


def test_a_cell_that_breathes_moves_nothing_by_images():
    """i-PI's positions scale with the cell, those of images far away by more."""
    factor = 1 + 0.01 * np.sin(np.arange(60))[:, None, None]
    far = Trajectory(
        np.array(["He"] * len(GRID)),
        np.arange(60),
        factor * (GRID + 20 * EDGE + 0.3 * brownian(frames=60)),
        factor * EDGE * np.eye(3),
    )
    assert np.abs(far.positions - far.positions[0]).max() > 2.0
    assert np.abs(displacements(far) - 0.3 * brownian(frames=60)).max() < 0.5


def test_frames_too_far_apart_are_refused():
    found, why = diffusion(trajectory(12 * brownian(frames=60)), step_ps=FRAME_PS)
    assert not found and "between two stored frames, in a cell of 12.4 Å" in why
    assert "--stride" in why


# --- what has none


def test_what_has_no_diffusion_says_why():
    moved = brownian(frames=60)
    whole = trajectory(moved)
    beads = Trajectory(whole.symbols, whole.steps // 2, whole.positions, whole.cells)
    uneven = Trajectory(whole.symbols, whole.steps**2, whole.positions, whole.cells)
    cases = [
        (whole, None, "does not print its time"),
        (beads, FRAME_PS, "a path integral"),
        (trajectory(moved[:39]), FRAME_PS, "39 frames after the equilibration: 40"),
        (uneven, FRAME_PS, "not evenly apart"),
        (trajectory(moved[:, :7]), FRAME_PS, "no kind of molecule occurs 8 times"),
        (trajectory(0 * moved), FRAME_PS, "all are held"),
    ]
    for given, step_ps, words in cases:
        found, why = diffusion(given, step_ps=step_ps)
        assert not found and words in why


def test_held_atoms_have_none_and_others_are_seen_from_them():
    moved = brownian(seed=7)
    moved[:, :20] = 0.0
    found = helium(moved)
    assert found.count == 44
    # in the frame of what is held nothing is subtracted
    assert abs(found.D - D) < 3 * found.stderr


def test_molecules_are_followed_by_their_centre_and_told_apart():
    rng = np.random.default_rng(9)
    centres = brownian(frames=60, atoms=16, D=0.1)
    inside = 0.02 * rng.normal(size=(60, 16, 3))
    grid = GRID[::4]
    oxygen = grid + centres + inside
    carbon = grid + np.array([1.13, 0, 0]) + centres - inside * 16 / 12
    molecules = Trajectory(
        np.array(["O"] * 16 + ["C"] * 16 + ["He"] * 8),
        np.arange(60),
        np.concatenate([oxygen, carbon, np.zeros((60, 8, 3)) + GRID[2::4][:8]], axis=1),
        np.broadcast_to(EDGE * np.eye(3), (60, 3, 3)),
    )
    found, why = diffusion(molecules, step_ps=FRAME_PS)
    assert why is None and list(found) == ["CO"] and found["CO"].count == 16


# --- the size of the cell


def test_the_term_of_the_cells_size_is_yehs_and_hummers():
    expected = 2.837297 * constants.k * 300 / (6 * math.pi * 1e-3 * EDGE * 1e-10) / (1e-5 * 1e-4)
    cells = np.broadcast_to(EDGE * np.eye(3), (4, 3, 3))
    assert finite_size_term(cells, 300) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.502, abs=0.001)
    assert finite_size_term(cells, None) is None
    assert finite_size_term(cells * [1.0, 1.0, 2.0], 300) is None
    # CRC Handbook
    assert water_viscosity_mPa_s(298.15) == pytest.approx(0.890, rel=0.01)
    assert water_viscosity_mPa_s(353.15) == pytest.approx(0.354, rel=0.025)
    assert water_viscosity_mPa_s(250) is None
