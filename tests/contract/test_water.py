"""The main job: 64 waters under i-PI with SO3LR every 6 fs and the student that ships."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from running import MTS, assert_nothing_is_left, environment, family, kill, start, wait_for

from mts_driver.analysis.report import report as write_report
from mts_driver.runs.input.mode import AHEAD

pytest.importorskip("so3krates_torch")
INPUTS = Path(__file__).parents[2] / "inputs"


def mts(*words):
    subprocess.run([MTS, *map(str, words)], env=environment(), check=True)


def run_folder(tmp_path, system):
    """A copy of an input; its sockets are named anew, so that two tests do not meet."""
    folder = tmp_path / system
    shutil.copytree(INPUTS / system, folder, ignore=shutil.ignore_patterns("*.png"))
    text = (folder / "input.xml").read_text()
    text, count = re.subn(r"water\w*-[0-9a-f]{6}-", f"test-{os.getpid()}-", text)
    assert count == 2
    (folder / "input.xml").write_text(text)
    return folder


def assert_sound(folder, steps, ahead):
    """What a run, with a baseline, says of itself."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["completed"] and summary["steps"] == steps
    assert summary["outer_timestep_fs"] == 6.0 and summary["n_inner"] == 6
    calls, of_student = summary["teacher_calls"], summary["student_calls"]
    if not ahead:  # once a step and once at the start, never more
        assert (calls, of_student) == (steps + 1, 6 * steps + 1)
    else:  # a driver may be ahead by two messages, and has seen the start in the baseline
        assert steps <= calls <= steps + 1 + 2 * ahead
        assert 6 * (calls - 1) + 1 <= of_student <= 6 * (calls + 1) + 1
    assert summary["clip_events"] == 0 and summary["max_force_difference_eV_A"] < 2.0
    for name in ("all", "H", "heavy"):
        # five standard deviations of the mean over so short a run, and no room for a blow-up
        assert 220 < summary["temperatures_K"][name] < 380
    assert summary["speedup_vs_single_step"] > 0
    # None where a driver that is ahead has computed for longer than so few steps took
    assert (summary["overhead_fraction"] or 0.0) < 1
    results = write_report(folder).results
    assert results["xh_bond_A"]["broken"] == 0
    assert (folder / "report.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("system", "steps"),
    [("water64", 60), pytest.param("water216", 6, marks=pytest.mark.slow)],
)
def test_shipped_inputs(tmp_path, system, steps):
    folder = run_folder(tmp_path, system)
    mts("run", folder / "input.xml", "--steps", steps, "--baseline-steps", 3)
    assert_sound(folder, steps, AHEAD)


@pytest.mark.parametrize(
    ("system", "steps", "beads", "teacher_beads", "ahead"),
    [
        pytest.param("water64_pimd", 3, 8, 8, AHEAD, marks=pytest.mark.slow),
        ("water64_pimd_rpc", 4, 8, 2, 0),
        ("water64_remd", 4, 3, 3, 1),
    ],
)
def test_shipped_inputs_of_other_ensembles(tmp_path, system, steps, beads, teacher_beads, ahead):
    """Path integrals in one driver, contraction with the inner loop in one, replica exchange.

    All beads begin alike, and copies in one message are evaluated once: one to all of them are, as
    the first messages hold all beads or some. That is a race between the threads of i-PI that add
    beads and that send them, which a loaded machine decides; so is how far a driver is ahead.
    """
    folder = run_folder(tmp_path, system)
    mts("run", folder / "input.xml", "--steps", steps, "--baseline-steps", 0)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["completed"] and summary["steps"] == steps
    n = summary["n_inner"]
    most = steps + 3 * ahead  # with what was in vain, as after an exchange
    assert teacher_beads * steps + 1 <= summary["teacher_calls"] <= teacher_beads * (most + 1)
    assert beads * n * steps + 1 <= summary["student_calls"]
    # a driver that takes the inner steps begins each time with a call, and i-PI has its own
    calls_of_ipi = beads + teacher_beads * (steps + 1)
    assert summary["student_calls"] <= beads * (n + 1) * most + calls_of_ipi
    assert summary["max_force_difference_eV_A"] < 2.0
    for name in ("all", "H", "heavy"):
        assert 200 < summary["temperatures_K"][name] < 420


def folder_to_kill(place):
    folder = run_folder(place, "water64_two_drivers")
    # i-PI removes the momentum of the centre of mass once more at a restart, which changes the
    # last bit of positions; sooner or later that turns a float32 digit of a force
    text = (folder / "input.xml").read_text()
    (folder / "input.xml").write_text(
        text.replace("<motion mode='dynamics'>", "<motion mode='dynamics'><fixcom>False</fixcom>")
    )
    return folder


LONG_ENOUGH = ("--steps", 30)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = folder_to_kill(tmp_path_factory.mktemp("whole"))
    mts("run", folder / "input.xml", *LONG_ENOUGH, "--baseline-steps", 3)
    return folder


def test_shipped_input_of_two_drivers(uninterrupted):
    assert_sound(uninterrupted, 30, 0)


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param("teacher", marks=pytest.mark.slow),
        pytest.param("student", marks=pytest.mark.slow),
        "mts run",
    ],
)
def test_killed_and_restarted_is_the_uninterrupted_run(tmp_path, victim, uninterrupted):
    """kill -9 of either driver or of everything's parent; the rest is as if nothing had been."""
    folder = folder_to_kill(tmp_path)
    process = start("run", folder / "input.xml", *LONG_ENOUGH, "--baseline-steps", 0)
    rows = folder / "simulation.out"
    wait_for(lambda: rows.exists() and len(rows.read_text().splitlines()) > 8, what="few steps")
    kill(process.pid if victim == "mts run" else family(folder)[victim])
    output, _ = process.communicate(timeout=60)
    if victim != "mts run":
        assert f"{victim} (process" in output and "SIGKILL" in output and "--restart" in output
        assert process.returncode == 2
    assert_nothing_is_left(folder / "input.xml")
    mts("run", folder / "input.xml", "--restart", *LONG_ENOUGH, "--baseline-steps", 0)
    for name in ("simulation.out", "simulation.pos_0.xyz"):
        assert (folder / name).read_text() == (uninterrupted / name).read_text()


@pytest.mark.slow
def test_twenty_picoseconds_like_single_steps(tmp_path):
    """T at O within 8 K, no hole, and the potential energy of single stepping; about an hour."""
    folder = run_folder(tmp_path, "water64")
    single = tmp_path / "single"
    mts("run", folder / "input.xml", "--steps", 3400)
    mts(
        "prepare", folder / "start.extxyz", "--student", "none", "--outer-fs", 1,
        "--hydrogen-mass-Da", 0, "--equilibrate-ps", 0, "--steps", 20400, "--stride", 30,
        "-o", single,
    )  # fmt: skip
    mts("run", single / "input.xml", "--baseline-steps", 0)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["clip_events"] == 0
    for name in ("H", "heavy"):
        assert abs(summary["temperatures_K"][name] - 300) < 8
    results = write_report(folder, reference=single).results
    assert results["xh_bond_A"]["broken"] == 0
    assert abs(results["potential_energy_difference_in_stderr"]) < 3
