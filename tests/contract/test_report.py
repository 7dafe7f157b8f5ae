"""`mts report` on what `mts run` writes."""

import json

import pytest
from running import here, make_run, mts


def test_a_run_under_ipi_can_be_reported(tmp_path):
    run = make_run(tmp_path / "run", steps=24, stride=2)
    assert mts("run", run, "--baseline-steps", 2, "--quiet").returncode == 0
    picture, numbers = tmp_path / "a.png", tmp_path / "b.json"
    done = here("report", run.parent, "--reference", run.parent, "-o", picture, "--json", numbers)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "no density of states: the run stores no velocities" in told
    assert "no diffusion coefficient: 9 frames after the equilibration: 40 are needed" in told
    assert picture.stat().st_size > 10_000
    found = json.loads(numbers.read_text())
    summary = json.loads((run.parent / "summary.json").read_text())
    for key in ("temperatures_K", "speedup_vs_single_step", "teacher_calls", "ns_per_day"):
        assert found[key] == summary[key]
    assert found["temperature_target_K"] == pytest.approx(300)
    assert found["natoms"] == 24
    assert found["frames"] == 13
    assert 0.8 < found["xh_bond_A"]["mean"] < 1.2
    assert found["xh_bond_A"]["broken"] == 0
    assert found["potential_energy_difference_eV"] == 0


def test_how_molecules_move_is_in_table_numbers_and_picture(tmp_path):
    """Eight molecules, whose velocities are stored every 2 fs, for a tenth of a picosecond."""
    velocities = "<trajectory filename='vel' format='xyz'> velocities </trajectory></output>"
    run = make_run(tmp_path / "run", steps=60, outer_fs=2.0, replace=[("</output>", velocities)])
    assert mts("run", run, "--baseline-steps", 0, "--quiet").returncode == 0
    numbers = tmp_path / "b.json"
    done = here("report", run.parent, "--reference", run.parent, "--json", numbers)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "density of states: 0.12 ps, frames stored every 2 fs, every 2 fs" in told
    assert "density of states of the reference" in told
    assert "diffusion of H2O: " in told and "too short a run" in told
    for row in (
        "D, H2O (1e-5 cm²/s)",
        "g(r) peak, O–H",
        "g(r) peak, H–H",
        "overlap of the spectra",
    ):
        assert row in told
    found = json.loads(numbers.read_text())
    water = found["diffusion"]["H2O"]
    assert water["molecules"] == 8 and water["warnings"] and water["stderr_1e5_cm2_s"] > 0
    assert found["diffusion_differences"]["H2O"]["in_stderr"] == 0
    size = found["diffusion_finite_size"]
    assert size["viscosity_of_water_mPa_s"] == pytest.approx(0.854, abs=0.001)
    assert size["term_at_that_viscosity_1e5_cm2_s"] == pytest.approx(1.18, abs=0.01)
    assert found["density_of_states_overlap"] == pytest.approx(1.0)
    # too short for errors, which JSON has no words for
    assert found["density_of_states_overlap_stderr"] is None
    assert set(found["motion"]["density_by_element_cm"]) == {"H", "O"}


def test_a_folder_without_a_run_is_refused(tmp_path):
    done = here("report", tmp_path)
    assert done.returncode == 2
    assert "holds 0 i-PI inputs" in done.stderr
    assert not list(tmp_path.iterdir())
