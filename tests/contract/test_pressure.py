"""The case pressure_without_stress: constant pressure without a stress never begins."""

import os

import numpy as np
import pytest
from running import here, mts, properties

MODEL = "ase:{}?sigma=3.4&epsilon=0.0104&rc=6.0&smooth=True"
LJ, NO_STRESS = "ase.calculators.lj:LennardJones", "nostress:NoStress"


def prepare(cases, folder, calculator):
    options = ["--student", "none", "--outer-fs", 2, "--pressure-bar", 1, "--steps", 2]
    options += ["--stride", 1, "--equilibrate-ps", 0, "--hydrogen-mass-Da", 0]
    options += ["--temperature-K", 40, "--teacher", MODEL.format(calculator), "--quiet"]
    return here("prepare", cases / "pressure_without_stress/ar.extxyz", "-o", folder, *options)


def test_pressure_without_stress(cases, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(cases / "pressure_without_stress"), prepend=os.pathsep)
    monkeypatch.syspath_prepend(cases / "pressure_without_stress")
    done = prepare(cases, tmp_path / "none", NO_STRESS)
    assert done.returncode == 2 and not (tmp_path / "none").exists()
    assert "--pressure-bar 1 with a teacher that gives no virial (stress)" in done.stderr

    done = prepare(cases, tmp_path / "run", LJ)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "run" / "input.xml"
    done = mts("run", file, "--baseline-steps", 0, "--quiet")
    assert done.returncode == 0, done.stderr
    volume, pressure = np.atleast_2d(properties(file.parent))[0, 6:8]
    assert volume == pytest.approx(9.8**3) and pressure == pytest.approx(17759, abs=1)

    # by hand, and before i-PI opens anything
    text = file.read_text()
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / "input.xml").write_text(text.replace(LJ, NO_STRESS))
    (tmp_path / "hand" / "start.extxyz").write_text((file.parent / "start.extxyz").read_text())
    done = mts("run", tmp_path / "hand" / "input.xml", "--baseline-steps", 0)
    assert done.returncode == 2, done.stderr
    assert "gives no virial (stress), without which nothing holds against a pres" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "hand").glob("simulation*"))
