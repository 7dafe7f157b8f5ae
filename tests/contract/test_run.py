"""`mts run`: the summary, kills, restarts; nothing is left behind."""

import json
import os
import signal

import numpy as np
import pytest
from running import (
    Gate,
    assert_nothing_is_left,
    family,
    here,
    kill,
    make_run,
    mts,
    properties,
    sockets_of,
    start,
    steps_done,
)

from mts_driver.runs.input.write import ZMQ_FILE, ZMQ_TEXT
from mts_driver.runs.stale_sockets import only_run_in

SUMMARY_KEYS = {
    "steps",
    "outer_timestep_fs",
    "n_inner",
    "wall_s",
    "ns_per_day",
    "teacher_calls",
    "student_calls",
    "teacher_ms",
    "student_ms",
    "overhead_fraction",
    "clip_events",
    "max_force_difference_eV_A",
    "conserved_drift",
    "conserved_drift_meV_atom_ps",
    "speedup_vs_single_step",
    "speedup_vs_single_step_2fs_hmr",
    "speedup_vs_single_step_4fs_constrained",
    "temperatures_K",
}


@pytest.mark.parametrize("mode", ["shm", "zmq"])
def test_a_run_counts_its_calls_and_sums_itself_up(tmp_path, mode):
    input_xml = make_run(tmp_path / "run", steps=12, mode=mode)
    done = mts("run", input_xml, "--json", tmp_path / "copy.json")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary == json.loads((tmp_path / "copy.json").read_text())
    assert set(summary) >= SUMMARY_KEYS
    assert all(summary[key] is not None for key in SUMMARY_KEYS)
    assert (summary["steps"], summary["n_inner"]) == (12, 4)
    assert summary["outer_timestep_fs"] == pytest.approx(4.0, rel=1e-9)
    # the baseline's calls do not count, the first structure's do
    assert summary["teacher_calls"] == 13
    assert summary["student_calls"] == 12 * 4 + 1
    assert set(summary["temperatures_K"]) == {"all", "H", "heavy"}
    assert 0 < summary["overhead_fraction"] < 1
    assert_nothing_is_left(input_xml)


def test_the_baseline_leaves_no_trace_in_the_trajectory(tmp_path):
    first = make_run(tmp_path / "with", steps=6)
    other = make_run(tmp_path / "without", steps=6)
    assert mts("run", first, "--baseline-steps", 5, "--quiet").returncode == 0
    assert mts("run", other, "--baseline-steps", 0, "--quiet").returncode == 0
    outputs = [(f.parent / "simulation.out").read_text() for f in (first, other)]
    assert outputs[0] == outputs[1]
    summary = json.loads((other.parent / "summary.json").read_text())
    assert summary["speedup_vs_single_step"] is None
    assert "switched off" in summary["speedup_vs_single_step_reason"]


def test_a_run_folder_of_before_the_modules_moved_runs_and_restarts(tmp_path):
    input_xml = make_run(tmp_path / "run", steps=4, mode="zmq")
    text = ZMQ_TEXT.replace("mts_driver.drivers.zmq.ipi_pes", "mts_driver.drivers.zmq_pes")
    assert text != ZMQ_TEXT
    (input_xml.parent / ZMQ_FILE).write_text(text)
    for more in (("--steps", 2), ("--restart",)):
        done = mts("run", input_xml, "--baseline-steps", 0, *more)
        assert done.returncode == 0, done.stderr
    assert properties(input_xml.parent)[:, 0].tolist() == list(range(5))


@pytest.mark.parametrize(
    ("victim", "mode"),
    [
        ("teacher", "unix"),
        pytest.param("student", "unix", marks=pytest.mark.slow),
        pytest.param("student", "zmq", marks=pytest.mark.slow),
        pytest.param("teacher", "device", marks=pytest.mark.slow),
    ],
)
def test_a_killed_driver_is_named_and_the_run_continues_as_if_nothing_had_been(
    tmp_path, victim, mode
):
    gate = Gate(tmp_path)
    # one process with both models: 30 steps are no multiple of the 4 that it takes at a time
    how = {"mode": "zmq", "device_steps": 4} if mode == "device" else {"mode": mode}
    whole = make_run(tmp_path / "whole", steps=30, **how)
    broken = make_run(tmp_path / "broken", teacher=gate.model, steps=30, **how)
    process = start("run", broken, "--baseline-steps", 0)
    gate.wait_for(lambda: steps_done(broken.parent) >= 3, what="third step")
    pid = family(broken.parent)[victim]
    kill(pid)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 2
    assert f"{victim} (process {pid}) was killed by signal 9 (SIGKILL)" in output
    assert "RESTART has been written" in output
    assert "--restart" in output
    assert_nothing_is_left(broken)

    gate.open()
    done = mts("run", broken, "--restart", "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr
    assert "continuing from RESTART" in done.stderr
    reference = mts("run", whole, "--baseline-steps", 0)
    assert reference.returncode == 0, reference.stderr
    assert (broken.parent / "simulation.out").read_text() == (
        whole.parent / "simulation.out"
    ).read_text()
    assert (broken.parent / "simulation.pos_0.xyz").read_text() == (
        whole.parent / "simulation.pos_0.xyz"
    ).read_text()


def test_a_killed_launcher_leaves_no_orphan_and_a_restart(tmp_path):
    gate = Gate(tmp_path)
    input_xml = make_run(tmp_path / "run", teacher=gate.model)
    process = start("run", input_xml, "--baseline-steps", 0)
    gate.wait_for(lambda: steps_done(input_xml.parent) >= 3, what="third step")
    assert set(family(input_xml.parent)) == {"engine", "teacher", "student"}
    kill(process.pid)
    process.communicate()
    assert_nothing_is_left(input_xml)
    done = steps_done(input_xml.parent)
    gate.open()
    again = mts("run", input_xml, "--restart", "--baseline-steps", 0, "--steps", done + 5)
    assert again.returncode == 0, again.stderr
    assert properties(input_xml.parent)[:, 0].tolist() == list(range(done + 6))


def test_ctrl_c_stops_cleanly(tmp_path):
    gate = Gate(tmp_path)
    input_xml = make_run(tmp_path / "run", teacher=gate.model)
    process = start("run", input_xml, "--baseline-steps", 0)
    gate.wait_for(lambda: steps_done(input_xml.parent) >= 3, what="third step")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "RESTART has been written" in output
    assert json.loads((input_xml.parent / "summary.json").read_text())["completed"] is False
    assert_nothing_is_left(input_xml)


def test_a_killed_ipi_is_named_and_an_older_checkpoint_serves(tmp_path):
    gate = Gate(tmp_path)
    input_xml = make_run(
        tmp_path / "run",
        teacher=gate.model,
        steps=300,
        replace=[("stride='200' overwrite", "stride='4' overwrite")],
    )
    (input_xml.parent / "RESTART").write_text("left by another run, and cut off in the mid")
    process = start("run", input_xml, "--baseline-steps", 0)
    gate.wait_for(lambda: steps_done(input_xml.parent) >= 6, what="sixth step")
    kill(family(input_xml.parent)["engine"])
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 2
    assert "i-PI (process" in output and "SIGKILL" in output
    assert_nothing_is_left(input_xml)
    assert not (input_xml.parent / "RESTART").exists()
    assert (input_xml.parent / "#RESTART#0#").exists()
    gate.open()
    again = mts("run", input_xml, "--restart", "--baseline-steps", 0, "--steps", 20)
    assert again.returncode == 0, again.stderr
    assert "continuing from simulation.checkpoint" in again.stderr
    rows = properties(input_xml.parent)
    assert rows[-1, 0] == 20
    # steps after the checkpoint were made twice, and came out the same
    _, first = np.unique(rows[:, 0], return_index=True)
    for step in rows[:, 0]:
        same = rows[rows[:, 0] == step]
        assert (same == same[0]).all()
    assert len(first) == 21


def test_a_stale_socket_is_removed_and_a_live_one_is_refused(tmp_path):
    import socket

    input_xml = make_run(tmp_path / "run", steps=2)
    path = sockets_of(input_xml)[0]
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    try:
        refused = mts("run", input_xml)
        assert refused.returncode == 2
        assert "in use" in refused.stderr and "<address>" in refused.stderr
        assert path.exists()
        assert not (input_xml.parent / "simulation.out").exists()
    finally:
        server.close()
    done = mts("run", input_xml, "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr
    assert "removed the stale socket" in done.stderr


def test_a_model_that_turns_nan_ends_the_run_before_ipi_sees_it(tmp_path):
    input_xml = make_run(tmp_path / "run", teacher="ase:toy_calculators:ToyWater?nan_after=8")
    done = mts("run", input_xml, "--baseline-steps", 0)
    assert done.returncode == 2
    assert "not finite at call" in done.stderr
    assert "RESTART has been written" in done.stderr
    assert np.isfinite(properties(input_xml.parent)).all()
    assert_nothing_is_left(input_xml)


def test_a_folder_is_for_one_run(tmp_path):
    """Another would move its files aside, and both would end as if nothing had been."""
    run = make_run(tmp_path, steps=5)
    with only_run_in(tmp_path):
        done = mts("run", run, "--baseline-steps", 0)
    assert done.returncode == 2 and "in use by another `mts run`" in done.stderr, done.stderr
    assert not (tmp_path / "simulation.out").exists()
    done = mts("run", run, "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr


def test_a_restart_refuses_an_input_that_says_something_else(tmp_path):
    """The checkpoint says how it goes on; only the number of steps may be another."""
    run = make_run(tmp_path, steps=2, outer_fs=4.0, inner_fs=2.0, stride=1)
    done = mts("run", run, "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr
    text = run.read_text().replace("<total_steps> 2", "<total_steps> 4")
    for old, new, message in (
        ("> 300 <", "> 600 <", "temperature is 600 K, there 300 K"),
        ("units='femtosecond'> 4 <", "units='femtosecond'> 2 <", "timestep is 2 fs, there 4 fs"),
        ("[ 1, 2 ]", "[ 1, 4 ]", "nmts is 1 4, there 1 2"),
        ("device: cpu", "device: cpu, threads: 2", "threads of 'teacher' is 2, there not given"),
        ("filename='pos' stride='1'", "filename='pos' stride='2'", "stride of trajectory 'pos'"),
    ):
        assert old in text, text
        run.write_text(text.replace(old, new))
        done = here("run", run, "--restart", "--baseline-steps", 0)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    run.write_text(text)
    done = mts("run", run, "--restart", "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr
