"""A real run whose driver keeps models, lists and atoms on a device: here the CPU."""

import json

import numpy as np
import pytest
from ase.io import read, write
from on_device import few_waters
from running import mts

pytest.importorskip("so3krates_torch")
pytest.importorskip("nvalchemiops")

OPTIONS = ("--equilibrate-ps", 0, "--no-minimise", "--steps", 6, "--stride", 1, "--outer-fs", 4)
HELD = ("--constrain-hydrogens", "--bond-lengths-A", "O-H=0.97", "--thermostat", "high-pass")


@pytest.mark.parametrize("mode", ["auto", pytest.param("unix", marks=pytest.mark.slow)])
def test_a_run_on_a_device_is_that_on_the_cpu(tmp_path, mode):
    """SO3LR and the packaged student under i-PI: whole outer steps, and two drivers that answer."""
    write(tmp_path / "start.extxyz", few_waters())
    found, options = [], (*HELD, "--mode", mode) if mode == "auto" else ("--mode", mode)
    for backend in ("cpu", "device"):
        folder = tmp_path / backend
        models = ("--teacher", f"so3lr?backend={backend}", "--student", f"water?backend={backend}")
        made = mts("prepare", tmp_path / "start.extxyz", *models, *OPTIONS, *options, "-o", folder)
        assert made.returncode == 0, made.stderr
        done = mts("run", folder / "input.xml", "--baseline-steps", 0)
        assert done.returncode == 0, done.stderr
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["completed"] and summary["teacher_ms"] > 0
        found.append((read(folder / "simulation.pos_0.xyz", ":"), summary))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(one.positions, other.positions, atol=5e-5)
    for name, kelvin in found[0][1]["temperatures_K"].items():
        assert found[1][1]["temperatures_K"][name] == pytest.approx(kelvin, rel=1e-4)
