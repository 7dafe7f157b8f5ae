"""Coloured noise and held distances from `mts prepare` to i-PI and back; what is refused."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants
from ipi_input import BAROSTAT, FS, GLE, HELD, LANGEVIN, PILE, advance
from running import TEACHER, here, make_run, mts, toy_water

from integrators import distances_file
from mts_driver.analysis.run_folder import RunFolder
from mts_driver.errors import UserError
from mts_driver.runs.input.read import read_input
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.input.write import input_xml
from mts_driver.structures.held_bonds import (
    distances,
    heavy_bonds_warning,
    held_pairs,
    parse_lengths,
)
from mts_driver.super_resolution.files.stored import read_stored
from mts_driver.super_resolution.fillers import filler
from mts_driver.super_resolution.ways.replay import read_physics
from mts_driver.thermostats import chosen, high_pass_noise

COVARIANCE = "[ 1e-3, 0, 0, 0, 1e-3, 0, 0, 0, 1e-3 ]"
QUIET = ("--baseline-steps", 0, "--quiet")


def test_the_matrix_that_is_written_is_the_one_that_drivers_use(tmp_path, load):
    """In plain i-PI XML, which i-PI itself reads without the plugin."""
    xml = make_run(tmp_path / "run", outer_fs=8.0, high_pass=True).read_text()
    tag = xml[xml.index("<thermostat") : xml.index("</thermostat>") + len("</thermostat>")]
    native = load(splitting="baoab", dynamics=tag)
    thermostat = native.syslist[0].motion.thermostat
    ours = np.array(high_pass_noise(1.0).drift_matrix) / FS
    np.testing.assert_allclose(np.array(dstrip(thermostat.A)), ours, rtol=1e-7)
    decay, spread = high_pass_noise(1.0).propagator(float(thermostat.dt) / FS)
    kT = Constants.kb * float(native.syslist[0].ensemble.temp)
    np.testing.assert_allclose(np.array(dstrip(thermostat.T)), decay, rtol=1e-6)
    np.testing.assert_allclose(np.array(dstrip(thermostat.S)) / kT**0.5, spread, rtol=1e-6)
    advance(native, 3)


def _numbers(checkpoint, name):
    text = checkpoint.findtext(f"system/{name}") or ""
    return np.array([float(x) for x in text.strip(" []\n").split(",")])


@pytest.mark.parametrize(
    "choices",
    [
        {"high_pass": True, "mode": "unix"},
        {"high_pass": True, "mode": "zmq", "device_steps": 5},
        {"constrained": True, "mode": "unix"},
        {"constrained": True, "mode": "zmq"},
        {"constrained": True, "mode": "zmq", "device_steps": 5},
        {"high_pass": True, "constrained": True, "mode": "unix"},
        {"high_pass": True, "constrained": True, "mode": "zmq", "device_steps": 5},
    ],
    ids=["noise", "noise, ahead", "held", "held, zmq", "held, ahead", "both", "both, ahead"],
)
def test_a_run_and_its_restart_are_the_uninterrupted_run(tmp_path, choices):
    """Real i-PI, real drivers, with the extra momenta and the lengths of RESTART."""
    whole, part = (
        make_run(tmp_path / name, outer_fs=4.0, inner_fs=2.0, steps=steps, **choices)
        for name, steps in (("whole", 12), ("part", 7))
    )
    for run in (whole, part):
        done = mts("run", run, *QUIET)
        assert done.returncode == 0, done.stdout + done.stderr
    slower = high_pass_noise(1.0).slowdown if "high_pass" in choices else 1.0
    assert RunFolder.find(whole.parent).slowdown == pytest.approx(slower, rel=1e-6)
    again = mts("run", part, "--restart", "--steps", 12, *QUIET)
    assert again.returncode == 0, again.stdout + again.stderr
    ends = [ET.parse(run.parent / "RESTART").getroot() for run in (whole, part)]
    names = ("beads/q", "beads/p", "motion/dynamics/thermostat/s")
    for name in names[: 3 if "high_pass" in choices else 2]:
        a, b = (_numbers(end, name) for end in ends)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(b).max())
    if "constrained" in choices:
        file = whole.parent / "constraints.txt"
        pairs, lengths = distances_file.read(file)
        x = _numbers(ends[0], "beads/q").reshape(-1, 3)
        found = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)
        np.testing.assert_allclose(found * 0.529177210903, lengths, rtol=1e-7)


def test_the_temperature_that_ipi_prints_knows_what_is_held(load):
    simulation = load(dynamics=LANGEVIN + HELD, fixcom=True)
    system = simulation.syslist[0]
    advance(simulation, 3)
    held = system.motion.integrator.held
    assert held.lost_degrees.sum() == pytest.approx(5.0)
    kinetic = float((np.array(system.beads.p) ** 2 / np.array(system.beads.m3)).sum())
    target = float(system.ensemble.temp)
    expected = (kinetic / Constants.kb + target * (3 + 5)) / 18
    assert system.properties.get_temp() == pytest.approx(expected, rel=1e-9)
    of_first = system.properties.get_temp(atom="0")
    p, m = np.array(system.beads.p)[0, :3], float(system.beads.m[0])
    share = 3 * m / float(np.sum(system.beads.m)) + held.lost_degrees[0]
    assert of_first == pytest.approx((p @ p / m / Constants.kb + target * share) / 3, rel=1e-9)
    # the monitor reads the same at O
    assert system.motion.integrator.monitor.degrees_of_freedom("all") == pytest.approx(10.0)


REFUSED = {
    "path integrals": ({"beads": 4, "dynamics": PILE + HELD}, "path integrals"),
    "npt": ({"mode": "npt", "dynamics": LANGEVIN + BAROSTAT + HELD}, "the ensemble npt"),
    "fixed atoms": (
        {"fixatoms": "<fixatoms>[1]</fixatoms>", "dynamics": LANGEVIN + HELD},
        "fixed atoms",
    ),
    "thermostat": (
        {"dynamics": LANGEVIN.replace("langevin", "pile_g") + HELD},
        "use 'langevin', 'svr' or 'gle'",
    ),
    "covariance": (
        {"dynamics": GLE.replace("</A>", f"</A><C shape='(3,3)'>{COVARIANCE}</C>") + HELD},
        "a covariance of its own",
    ),
    "friction": (
        {
            "dynamics": LANGEVIN
            + HELD
            + "<hydrogen_friction units='inverseps'>50</hydrogen_friction>"
        },
        "must have one friction",
    ),
    "no file": ({"dynamics": LANGEVIN + "<constrain> none.txt </constrain>"}, "cannot be read"),
    "another splitting": (
        {"splitting": "baoab", "dynamics": LANGEVIN + HELD},
        "is for splitting='respa-baoab'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_held_is_refused_by_the_plugin(load, case):
    options, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        load(**options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 1\n", "line 1"),
        ("# nothing\n", "names no distance"),
        ("0 1 a\n", "line 1"),
        ("0 1 -0.5\n", "positive"),
        ("0 17 0.5\n", r"outside 0\.\.5"),
    ],
)
def test_files_that_hold_nothing_are_refused(load, tmp_path, text, said):
    (tmp_path / "held.txt").write_text(text)
    with pytest.raises(ValueError, match=said):
        load(dynamics=LANGEVIN + f"<constrain>{tmp_path}/held.txt</constrain>")


def test_an_input_with_held_distances_at_constant_pressure_is_refused_before_it_runs(tmp_path):
    run = make_run(tmp_path / "run", constrained=True, steps=2)
    text = run.read_text().replace("mode='nvt'", "mode='npt'")
    run.write_text(text.replace("</thermostat>", "</thermostat>" + BAROSTAT, 1))
    with pytest.raises(UserError, match="<constrain> with constant pressure"):
        read_input(run)


def test_pressures_without_the_forces_that_hold_distances_are_not_written(tmp_path):
    run = make_run(tmp_path / "run", constrained=True, steps=2)
    run.write_text(run.read_text().replace("step, time", "step, pressure_md{bar}, time", 1))
    with pytest.raises(UserError, match="<constrain> with an <output> of pressures"):
        read_input(run)


def test_frames_of_a_run_with_held_bonds_are_not_filled_in_by_what_lets_them_vibrate(tmp_path):
    run = make_run(tmp_path / "run", constrained=True, steps=2)
    with pytest.raises(UserError, match="holds distances"):
        read_physics(run)
    stored = replace(read_stored(frames_in(tmp_path)), input=run)
    with pytest.raises(UserError, match="model='quintic'"):
        filler("water", stored)
    assert filler("quintic", stored)


def frames_in(folder):
    """Three frames of a few waters, with velocities."""
    frames = []
    for k in range(3):
        atoms = toy_water()
        atoms.set_velocities(np.full((len(atoms), 3), 1e-3))
        atoms.positions += 1e-3 * k
        atoms.info["time_ps"] = 0.002 * k
        frames.append(atoms)
    write(folder / "frames.extxyz", frames)
    return folder / "frames.extxyz"


def test_prepare_says_and_writes_what_is_held(tmp_path):
    start = tmp_path / "start.extxyz"
    toy_water().write(start)
    out = tmp_path / "run"
    done = here(
        *("prepare", start, "-o", out, "--teacher", TEACHER, "--student", "water"),
        *("--constrain-hydrogens", "--bond-lengths-A", "O-H=0.97", "--equilibrate-ps", 0),
        *("--outer-fs", 12, "--inner-fs", 2, "--steps", 3, "--no-minimise"),
    )
    assert done.returncode == 0, done.stderr
    assert "16 distances are held: O-H 0.9700 Å" in done.stderr
    pairs, lengths = distances_file.read(out / "constraints.txt")
    assert len(pairs) == 16 and set(lengths) == {0.97}
    assert "<constrain> constraints.txt </constrain>" in (out / "input.xml").read_text()
    assert "mode='gle'" in (out / "input.xml").read_text()
    assert "coloured noise" in done.stderr and "warning" not in done.stderr


WRONG = {
    "no length": (("--constrain-hydrogens", "--bond-lengths-A", "C-H=1.1"), "names 'C-H'"),
    "no number": (("--constrain-hydrogens", "--bond-lengths-A", "O-H=long"), "O-H=0.98,C-H=1.09"),
    "too long": (("--constrain-hydrogens", "--bond-lengths-A", "O-H=9"), "0.5 to 2.5"),
    "nothing held": (("--bond-lengths-A", "O-H=0.98"), "no bond is held"),
    "friction": (
        ("--constrain-hydrogens", "--hydrogen-friction-per-ps", "20"),
        "must have one friction",
    ),
    "beads": (("--constrain-hydrogens", "--beads", "4"), "no bonds of a fixed length"),
    "pressure": (("--constrain-hydrogens", "--pressure-bar", "1"), "change their lengths"),
    "noise, beads": (("--thermostat", "high-pass", "--beads", "4"), "noise of their own"),
    "noise, name": (("--thermostat", "low-pass"), "auto, langevin, high-pass"),
    "store": (("--constrain-hydrogens", "--store-for-superres"), "lets them vibrate"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_prepare_cannot_do_is_said_and_nothing_is_written(tmp_path, case):
    options, said = WRONG[case]
    start = tmp_path / "start.extxyz"
    toy_water().write(start)
    done = here("prepare", start, "-o", tmp_path / "run", "--teacher", TEACHER, *options)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_noise_is_chosen_by_the_outer_step():
    assert chosen("auto", outer_fs=6.0) == "langevin"
    assert chosen("auto", outer_fs=8.0) == "high-pass"
    for other in ({"student": False}, {"beads": 4}):
        assert chosen("auto", outer_fs=8.0, **other) == "langevin"
    assert chosen("auto", outer_fs=8.0, hydrogen_friction=True) == "langevin"
    with pytest.raises(UserError, match="constant energy"):
        chosen("high-pass", outer_fs=8.0, friction_per_ps=0.0)


def test_kinds_of_bonds_know_their_neighbours():
    atoms = molecule("CH3CH2OH")
    pairs = held_pairs(atoms)
    assert {kind: len(found) for kind, found in pairs.items()} == {
        "C(CHHO)-H": 2,
        "O(CH)-H": 1,
        "C(CHHH)-H": 3,
    }
    found = distances(pairs, {"C-H": 1.09, "O-H": 0.97, "C(CHHH)-H": 1.1})
    assert sorted(found.lengths) == [0.97, 1.09, 1.09, 1.1, 1.1, 1.1]
    with pytest.raises(UserError, match="lacks O"):
        distances(pairs, {"C-H": 1.09})
    with pytest.raises(UserError, match="no water"):
        held_pairs(atoms, rigid_water=True)
    assert len(held_pairs(molecule("H2O"), rigid_water=True)["H-O-H"]) == 1
    with pytest.raises(UserError, match="no hydrogen"):
        held_pairs(molecule("N2"))
    assert parse_lengths("O-H=0.98, C-H=1.09") == {"O-H": 0.98, "C-H": 1.09}


@pytest.mark.parametrize(
    ("outer_fs", "inner_fs", "high_pass", "said"),
    [
        (7.0, 1.75, True, None),
        (6.0, 2.0, False, None),
        (12.0, 2.0, False, "leave --thermostat high-pass"),
        (12.0, 2.0, True, "more than 7 fs, here 12"),
        (7.0, 3.5, True, "give an --inner-fs of at most 2"),
    ],
)
def test_steps_that_bonds_between_heavy_atoms_do_not_stand_are_warned_of(
    outer_fs, inner_fs, high_pass, said
):
    how = {"outer_fs": outer_fs, "inner_fs": inner_fs, "high_pass": high_pass}
    found = heavy_bonds_warning(molecule("CH3CH2OH"), **how)
    assert found is None if said is None else said in found
    assert heavy_bonds_warning(molecule("H2O"), **how) is None


def test_inputs_of_white_noise_are_what_they_were(tmp_path):
    """A default input has no new tag."""
    settings = RunSettings(
        teacher="so3lr",
        student="student:water",
        outer_fs=6.0,
        inner_fs=1.0,
        hydrogen_mass=4.0,
        temperature_K=300.0,
        friction_per_ps=1.0,
        steps=10,
        stride=5,
        seed=1,
    )
    xml = input_xml(settings, tmp_path)
    assert "constrain" not in xml and "gle" not in xml
    assert "<thermostat mode='langevin'>" in xml
