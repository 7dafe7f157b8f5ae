"""Temperatures of systems so small that every degree of freedom counts, under real i-PI."""

import json

import numpy as np
from ase import Atoms
from ipi_input import LANGEVIN, ONE_LEVEL, PILE, advance
from running import here, mts

from integrators.ipi import plugin as ipi_plugin
from mts_driver.runs.measured.measurements import _mean

HCL = """2
# CELL(abcABC): 20 20 20 90 90 90 positions{atomic_unit} cell{atomic_unit}
H 0.60 -0.25 0.35
Cl -0.15 0.30 -0.40
"""
ARGON = """1
# CELL(abcABC): 20 20 20 90 90 90 positions{atomic_unit} cell{atomic_unit}
Ar 0.60 -0.25 0.35
"""
FAST_BATH = LANGEVIN.replace(">40<", ">4<")


def readings(load, names, steps=10, **options):
    """Temperatures of the groups after every outer step."""
    simulation = load(nmts="[1]", weights=ONE_LEVEL, timestep_fs=1.0, **options)
    (monitor,) = ipi_plugin.monitors(simulation)
    found = []
    for _ in range(steps):
        advance(simulation, 1)
        found.append([monitor.latest_K[name] for name in names])
    assert set(monitor.temperatures_K) == set(names)
    return np.array(found)


def check_mean(temperatures_K):
    blocks = temperatures_K.reshape(30, 50).mean(axis=1)
    assert abs(blocks.mean() - 300) < 4 * blocks.std() / np.sqrt(len(blocks)) < 60


def test_hydrogen_and_chlorine_have_one_temperature(load):
    names = ["all", "H", "heavy"]
    found = readings(load, names, xyz=HCL, fixcom=True, dynamics=FAST_BATH, steps=1500)
    np.testing.assert_allclose(found, found[:, :1] * np.ones(3), rtol=1e-9)
    check_mean(found[:, 0])


def test_a_single_atom_has_a_temperature_only_where_it_can_move(load):
    assert readings(load, [], xyz=ARGON, fixcom=True).shape == (10, 0)
    free = readings(load, ["all", "heavy"], xyz=ARGON, dynamics=FAST_BATH, steps=1500)
    assert np.array_equal(free[:, 0], free[:, 1])
    check_mean(free[:, 0])
    # of four beads with a still centroid three modes are left
    bath = {"beads": 4, "dynamics": PILE.replace(">40<", ">4<"), "fixcom": True}
    check_mean(readings(load, ["all", "heavy"], xyz=ARGON, steps=1500, **bath)[:, 0])


def test_held_atoms_do_not_count(load):
    # i-PI would fix the centre of mass as well, and says that it does not
    water = {"fixatoms": "<fixatoms>[0, 3]</fixatoms>", "fixcom": True, "dynamics": FAST_BATH}
    found = readings(load, ["all", "H"], steps=1600, **water)
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-12)
    check_mean(found[100:, 0])  # the start is far from the minimum


def test_a_run_of_one_atom_leaves_temperatures_out(tmp_path):
    Atoms("Ar", [[5, 5, 5]], cell=[10.0] * 3, pbc=True).write(tmp_path / "argon.extxyz")
    model = "ase:ase.calculators.lj:LennardJones?sigma=3.4&rc=6.0&epsilon"
    models = ["--teacher", f"{model}=0.0104", "--student", f"{model}=0.012"]
    options = ["--steps", 4, "--stride", 2, "--equilibrate-ps", 0, "--mode", "zmq"]
    done = here("prepare", tmp_path / "argon.extxyz", *models, *options, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    done = mts("run", tmp_path / "run" / "input.xml", "--baseline-steps", 0)
    assert done.returncode == 0 and "T at O: -;" in done.stderr, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["completed"] and summary["steps"] == 4
    assert summary["temperatures_K"] is None and summary["temperatures_second_half_K"] is None
    assert "no atom moves but with the centre of mass" in summary["temperatures_K_reason"]


def test_systems_with_different_groups_are_averaged_by_group():
    argon, water = {"all": 280.0, "heavy": 280.0}, {"all": 320.0, "H": 310.0, "heavy": 340.0}
    assert _mean([{}, argon, water]) == {"all": 300.0, "heavy": 310.0, "H": 310.0}
    assert _mean([{}, {}]) == _mean([]) == {}
