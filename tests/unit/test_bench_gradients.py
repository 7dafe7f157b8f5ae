"""What `mts bench gradients` measures, on few steps."""

import pytest
from ase.io import write

from mts_driver.bench.gradient_runs import _reached, exactness, length, recovery, reversibility
from mts_driver.bench.gradient_systems import SYSTEMS, argon, gradient_system
from mts_driver.errors import UserError


@pytest.mark.parametrize("ensemble", ["NVE", "NVT"])
@pytest.mark.parametrize("system", ["harmonic", "Lennard-Jones"])
def test_reversal_is_autograd(system, ensemble):
    ours, graph, slopes = exactness(system=system, ensemble=ensemble, steps=20, structure="")
    assert ours["relative_error"] < 1e-8
    assert slopes["relative_error"] < 1e-4
    assert (ours["method"], graph["method"]) == ("reversible", "autograd")


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ["NVE", "NVT"])
@pytest.mark.parametrize("system", ["water", "student"])
def test_reversal_is_autograd_for_water(structures, system, ensemble):
    structure = str(structures / "water64_packmol.extxyz")
    ours, *_ = exactness(system=system, ensemble=ensemble, steps=40, structure=structure)
    assert ours["relative_error"] < (1e-5 if system == "student" else 1e-8)


def test_single_precision_returns_less_far():
    of = {"system": "Lennard-Jones", "ensemble": "NVT", "steps": 30, "structure": ""}
    exact, rough = (
        reversibility(dtype=dtype, anchor_every=30, **of) for dtype in ("float64", "float32")
    )
    assert exact["return_error_A"] < 1e-9 < rough["return_error_A"]


def test_lengths_have_a_time_and_a_peak():
    found = length(method="reversible", steps=10, structure="")
    assert found["peak_MB"] >= 0 < found["seconds"]


def test_recovery_counts_its_steps():
    found = recovery(method="reweighting", off=0.05, updates=2, picoseconds=0.2, structure="")
    assert found["steps"] >= 140
    assert 0 < found["effective_share"] <= 1


def test_reached_means_for_good():
    assert _reached([0.2, 0.005, 0.02, 0.009, 0.004]) == 3
    assert _reached([0.001]) == 0
    assert _reached([0.001, 0.2]) is None


def test_water_must_be_water(tmp_path):
    write(tmp_path / "ar.extxyz", argon(1))
    with pytest.raises(UserError, match="O H H a molecule"):
        gradient_system("water", ensemble="NVT", structure=str(tmp_path / "ar.extxyz"))
    assert set(SYSTEMS) == {"harmonic", "Lennard-Jones", "water", "student"}
