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


def test_a_folder_without_a_run_is_refused(tmp_path):
    done = here("report", tmp_path)
    assert done.returncode == 2
    assert "holds 0 i-PI inputs" in done.stderr
    assert not list(tmp_path.iterdir())
