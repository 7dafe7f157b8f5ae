"""Drivers on other nodes than i-PI: the batch scripts of inputs/cluster, cables that break, keys.

Nodes are network namespaces of this machine, with one stand-in for all of SLURM: `srun`.
"""

import json
import os
import signal
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from nodes import nodes as nodes  # noqa: PLC0414 (a fixture)
from running import LONG_S, MTS, STUDENT, TEACHER, Gate, make_run, mts, properties, steps_done, wait_for

from mts_driver.runs.launcher import Launcher, load

CLUSTER = Path(__file__).parents[2] / "inputs" / "cluster"
WATER = {"teacher": "so3lr", "student": "student:water"}


def said(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def by_hand(nodes, run, *, teacher=TEACHER, port=31415, **options):
    """Start the teacher on the second node and the run, with its student, on the first."""
    at = f"{nodes.names[0]}:{port}"
    words = ("--mode", "inet", "--address", at, "--reconnect")
    driver = nodes.serve(1, teacher, *words, cwd=run.parent, log="teacher.log")
    started = nodes.start(
        0, MTS, "run", "input.xml", "--elsewhere", f"teacher={at}", cwd=run.parent, log="run.log"
    )
    return started, driver


def test_a_cable_that_comes_back_leaves_the_trajectory_of_one_machine(nodes, tmp_path):
    """The first job of the user: no line of the input changes for another machine."""
    alone = make_run(tmp_path / "alone", mode="unix", n=1, steps=30)
    assert mts("run", alone).returncode == 0
    gate = Gate(tmp_path)
    run = make_run(tmp_path / "run", mode="unix", n=1, steps=30, teacher=TEACHER)
    started, driver = by_hand(nodes, run, teacher=gate.model)
    gate.wait_for(lambda: steps_done(run.parent) > 3, what="steps")
    nodes.cable("down")
    gate.open()
    time.sleep(0.5)
    before = steps_done(run.parent)
    nodes.cable("up")
    assert started.wait(LONG_S) == 0, said(run.parent / "run.log")
    assert before < 30
    np.testing.assert_array_equal(properties(run.parent), properties(alone.parent))
    assert "teacher: driver connected (10.77.0.2)" in said(run.parent / "run.log")
    assert driver.poll() is None  # --reconnect: until somebody ends it


def twin(folder, *, steps=30, **options):
    """The same run twice: done on one machine, and to be done."""
    alone = make_run(folder / "alone", steps=steps, **options)
    Launcher(load(alone), baseline_steps=0).execute()
    return alone.parent, make_run(folder / "run", steps=steps, **options).parent


def test_ranks_of_the_teacher_on_the_second_node(nodes, tmp_path):
    """The batch script as it stands, with SO3LR and the packaged student."""
    pytest.importorskip("so3krates_torch")
    pytest.importorskip("mpi4py")
    run = make_run(tmp_path / "run", mode="unix", steps=4, **WATER).parent
    job = nodes.submit(CLUSTER / "two_nodes.sbatch", run, SLURM_NTASKS_PER_NODE="2")
    assert job.wait(LONG_S) == 0, said(tmp_path / "job.out") + said(run / "teacher.log")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["completed"] and summary["holes"] == 0
    assert "teacher: driver connected (10.77.0.2)" in said(tmp_path / "job.out")
    assert "the server said exit" in said(run / "teacher.log")
    wait_for(lambda: not nodes.pids(1), what="end of the ranks")
