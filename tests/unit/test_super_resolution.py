"""Gaps, the splines that fill them, and files of MD17, where the exact answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from mts_driver.errors import UserError
from mts_driver.super_resolution.doubts import astray_A, bounds_A, unexplained
from mts_driver.super_resolution.files.md17 import made_of, read_md17, write_md17
from mts_driver.super_resolution.frames import Frames, gaps
from mts_driver.super_resolution.ways.splines import SPLINES, spline
from mts_driver.units import EV_FS2_A2_PER_AMU, KCAL_MOL_EV

PERIOD_FS = 10.0


def polynomial(degree, count=31, timestep_fs=0.5):
    """Atoms along polynomials of time, with their derivatives."""
    t = timestep_fs * np.arange(count)
    coefficients = np.random.default_rng(0).normal(size=(2, 3, degree + 1)) / 15.0 ** np.arange(
        degree + 1
    )
    one = np.polynomial.Polynomial
    orders = [
        np.stack([[one(c).deriv(k)(t) if k else one(c)(t) for c in atom] for atom in coefficients])
        for k in range(3)
    ]
    return Frames(np.array([8, 1]), timestep_fs, *(x.transpose(2, 0, 1) for x in orders))


def oscillation(count=81, timestep_fs=0.5):
    omega = 2.0 * np.pi / PERIOD_FS
    t = timestep_fs * np.arange(count)[:, None, None] + np.zeros((1, 1, 3))
    x = np.cos(omega * t)
    v = -omega * np.sin(omega * t)
    return Frames(np.array([1]), timestep_fs, x, v, -(omega**2) * x)


@pytest.mark.parametrize(("kind", "degree"), [("linear", 1), ("cubic", 3), ("quintic", 5)])
def test_splines_are_exact_up_to_their_degree(kind, degree):
    for more, exact in ((0, True), (1, False)):
        between, truth = gaps(polynomial(degree + more), 10)
        found = spline(between, 0.5 * np.arange(1, 10), kind)
        assert found.shape == truth.shape == (9, 3, 2, 3)
        assert (np.abs(found - truth).max() < 1e-12) == exact


@pytest.mark.parametrize("kind", SPLINES)
def test_errors_of_splines_have_their_order(kind):
    """Halving the gap of an oscillation divides the error by 2 to the power of the data."""
    worst = []
    for stride in (4, 2):
        between, truth = gaps(oscillation(), stride)
        times = 0.5 * np.arange(1, stride)
        worst.append(np.abs(spline(between, times, kind) - truth).max())
    order = 2 * SPLINES[kind]
    assert worst[0] / worst[1] == pytest.approx(2.0**order, rel=0.15)


def test_gaps_hold_every_frame_once():
    frames = oscillation(count=12)
    between, truth = gaps(frames, 5)
    assert between.duration_fs == 2.5
    assert truth.shape == (4, 2, 1, 3)
    np.testing.assert_array_equal(between.right[0][0], between.left[0][1])
    np.testing.assert_array_equal(truth[:, 1], frames.positions_A[6:10])


def test_what_cannot_be_filled_is_said():
    frames = oscillation()
    without = Frames(frames.numbers, 0.5, frames.positions_A)
    between, _ = gaps(without, 4)
    with pytest.raises(UserError, match="cubic spline needs velocities"):
        spline(between, [1.0], "cubic")
    with pytest.raises(UserError, match="kind='septic'"):
        spline(between, [1.0], "septic")
    with pytest.raises(UserError, match="within 2 fs"):
        spline(between, [2.1], "linear")
    for stride in (1, 81):
        with pytest.raises(UserError, match=f"stride={stride}: give 2 to 80"):
            gaps(frames, stride)
    broken = frames.positions_A.copy()
    broken[7, 0, 1] = np.nan
    with pytest.raises(UserError, match="positions_A of frame 7 is not finite"):
        Frames(frames.numbers, 0.5, broken)
    with pytest.raises(UserError, match=r"velocities_A_fs has the shape"):
        Frames(frames.numbers, 0.5, frames.positions_A, frames.positions_A[:3])
    with pytest.raises(UserError, match="timestep_fs=0"):
        Frames(frames.numbers, 0.0, frames.positions_A)


@pytest.mark.parametrize("names", [("z", "R", "F"), ("nuclear_charges", "coords", "forces")])
def test_files_of_md17_have_their_units(tmp_path, names):
    """A hydrogen in a spring: its forces say what its positions do."""
    frames = oscillation(timestep_fs=0.1)
    force_kcal = frames.accelerations_A_fs2 * 1.008 * EV_FS2_A2_PER_AMU / KCAL_MOL_EV
    data = dict(zip(names, (frames.numbers, frames.positions_A, force_kcal), strict=True))
    np.savez(tmp_path / "h.npz", **data, E=np.zeros(len(frames)))
    read = read_md17(tmp_path / "h.npz", timestep_fs=0.1)
    assert len(read) == len(frames) - 2
    np.testing.assert_allclose(read.accelerations_A_fs2, frames.accelerations_A_fs2[1:-1])
    np.testing.assert_allclose(read.velocities_A_fs, frames.velocities_A_fs[1:-1], atol=1e-3)
    between, truth = gaps(read, 10)
    assert np.abs(spline(between, 0.1 * np.arange(1, 10), "quintic") - truth).max() < 1e-3


def test_files_that_are_no_series_are_refused(tmp_path):
    frames = oscillation(count=5)
    whole = {"z": frames.numbers, "R": frames.positions_A, "F": frames.positions_A}
    cases = (
        ({**whole, "old_indices": np.array([7, 3, 9, 1, 2])}, "do not follow one another in time"),
        ({"z": frames.numbers, "R": frames.positions_A}, "no array F or forces"),
        ({**whole, "F": frames.positions_A[:3]}, r"must be \(frames, atoms, 3\)"),
        ({**whole, "R": np.array([{}], dtype=object)}, r"no \.npz file of numbers"),
    )
    for k, (arrays, said) in enumerate(cases):
        np.savez(tmp_path / f"{k}.npz", **arrays)
        with pytest.raises(UserError, match=said):
            read_md17(tmp_path / f"{k}.npz")
    (tmp_path / "text.npz").write_text("R")
    with pytest.raises(UserError, match=r"no \.npz file of numbers"):
        read_md17(tmp_path / "text.npz")
    with pytest.raises(UserError, match="does not exist"):
        read_md17(tmp_path / "none.npz")


def test_our_own_files_have_velocities_and_say_how_they_were_made(tmp_path):
    frames, path, made = polynomial(3), tmp_path / "own.npz", {"teacher": "none", "seed": 1}
    write_md17(path, frames, np.zeros(len(frames)), made)
    assert made_of(path) == made
    found = read_md17(path)
    assert found.timestep_fs == frames.timestep_fs
    for name in ("positions_A", "velocities_A_fs", "accelerations_A_fs2"):
        np.testing.assert_allclose(getattr(found, name), getattr(frames, name), atol=1e-14)
    np.savez(tmp_path / "other.npz", z=[1])
    assert made_of(tmp_path / "other.npz") is None


def test_gaps_can_show_what_lies_around_them():
    frames = oscillation(count=40)
    between, truth = gaps(frames, 5, 3)
    assert between.window == 3 and between.first.tolist() == [2, 7, 12, 17, 22, 27, 32]
    np.testing.assert_array_equal(between.before[0][:, 1], frames.positions_A[[5, 6]])
    np.testing.assert_array_equal(between.after[0][:, 1], frames.positions_A[[13, 14]])
    np.testing.assert_array_equal(truth[:, 1], frames.positions_A[8:12])
    back = between.turned()
    np.testing.assert_array_equal(back.before[0][:, 1], frames.positions_A[[14, 13]])
    np.testing.assert_array_equal(back.left[1][1], -frames.velocities_A_fs[12])
    some = between.part(1, 3)
    assert len(some) == 2 and some.first.tolist() == [7, 12]


def test_a_jump_stands_out_and_vibrations_do_not():
    frames = oscillation(count=401)
    between, _ = gaps(frames, 4)
    usual = bounds_A(astray_A(between), frames.numbers, np.ones(1, bool))
    assert (astray_A(between) <= usual).all()
    x = frames.positions_A.copy()
    x[200:] += 0.2
    jumped, _ = gaps(replace(frames, positions_A=x), 4)
    assert (astray_A(jumped) > usual).any(1).nonzero()[0].tolist() == [49]
    assert unexplained(0.01, 0.001) and not unexplained(0.01, 0.005) and not unexplained(5e-4, 0.0)
