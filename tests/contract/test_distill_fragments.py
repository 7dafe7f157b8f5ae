"""mts distill with a system cut into fragments, the real teacher and the student that ships."""

import json

import numpy as np
import pytest
from ase.io import read
from running import LONG_S, kill, mts, start, wait_for

from mts_driver.potentials import load_potential
from mts_driver.validation.evaluation import Evaluated


def test_killed_continued_and_better_than_the_general_student(structures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = read(structures / "acetic_acid_water200.extxyz")
    words = (
        *("distill", structures / "acetic_acid_water200.extxyz", "--from", "general"),
        *("--fragment-radius-A", 8, "--updates", 120, "--frames", 100, "-o", "s.safetensors"),
    )
    process = start(*words)
    labels = tmp_path / "s" / "labels.extxyz"
    wait_for(
        lambda: process.poll() is not None or (labels.exists() and labels.stat().st_size > 100_000),
        timeout=3 * LONG_S,
    )
    assert process.poll() is None, process.communicate()
    kill(process.pid)
    process.communicate()
    snapshots = read(next((tmp_path / "s").glob("*-snapshots.extxyz")), ":")
    done = mts(*words, timeout=3 * LONG_S)
    assert done.returncode == 0, done.stdout + done.stderr

    again = read(next((tmp_path / "s").glob("*-snapshots.extxyz")), ":")
    np.testing.assert_array_equal([a.positions for a in again], [a.positions for a in snapshots])
    assert len(again) == 6 and (again[0].numbers == whole.numbers).all()
    frames = read(labels, ":")
    plain = [a for a in frames if a.info["kind"] == "md"]
    keys = [(a.info["snapshot"], a.info["center"]) for a in plain]
    assert len(set(keys)) == len(keys)  # nothing was labelled twice
    tested = {a.info["snapshot"] for a in plain if a.info["split"] == "test"}
    trained = {a.info["snapshot"] for a in plain if a.info["split"] == "train"}
    assert tested == {5} and trained == {0, 1, 2, 3, 4}
    for atoms in frames:
        weight = atoms.get_array("force_weight")
        assert len(atoms) < len(whole) / 2 and 0 < weight.sum() < len(atoms)

    report = json.loads((tmp_path / "s.json").read_text())
    tests = [a for a in plain if a.info["split"] == "test"]
    general = Evaluated.on_frames(tests, lambda a: load_potential("student:general", a.numbers))
    before = general.summary()["force_rmse_eV_A"]["all"]  # 0.16: in vacuum fields are strong
    assert before == pytest.approx(report["force_rmse_before_eV_A"]["all"], rel=1e-4)
    assert report["force_rmse_eV_A"]["all"] < 0.9 * before  # 0.74 where this was written
    assert sum(report["labels"].values()) == len(frames) == pytest.approx(100, abs=10)
    assert report["test_atoms"] < sum(len(a) for a in tests)
    assert abs(report["xh_force_constant_error"]["mean"]) < 0.02
    assert {"snapshot", "center"} <= set(plain[0].info) and report["settings"]["base"] == "general"
