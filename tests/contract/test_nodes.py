"""Drivers on other nodes than i-PI: the batch scripts of inputs/cluster, cables that break, keys.

Nodes are network namespaces of this machine; `srun` is a script that runs commands in them.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nodes import SILENT, said
from nodes import nodes as nodes
from running import (
    LONG_S,
    MTS,
    STUDENT,
    TEACHER,
    Gate,
    make_run,
    properties,
    sockets_of,
    steps_done,
    wait_for,
)

from mts_driver.drivers.zmq.keys import make_keys
from mts_driver.runs.launcher import Launcher, load

CLUSTER = Path(__file__).parents[2] / "inputs" / "cluster"
WATER = {"teacher": "so3lr", "student": "student:water", "mode": "zmq"}
SSHD = """
import asyncio, asyncssh
class Server(asyncssh.SSHServer):
    def begin_auth(self, user): return False
    def unix_connection_requested(self, path): return True
async def main():
    key = asyncssh.generate_private_key("ssh-ed25519")
    await asyncssh.listen("10.77.0.1", 2222, server_factory=Server, server_host_keys=[key])
    print("listens", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
EXIT = "<exit_on_disconnect> True </exit_on_disconnect>"
# hangs up on the first that comes
LISTEN = (
    "import socket; s = socket.create_server(('10.77.0.1', 31415)); s.accept()[0].close(); "
    "k = [s.accept() for _ in '12']"
)


def twin(folder, *, steps=30, **options):
    """The same run twice: done on one machine, and to be done."""
    alone = make_run(folder / "alone", steps=steps, **options)
    Launcher(load(alone), baseline_steps=0).execute()
    return alone.parent, make_run(folder / "run", steps=steps, **options).parent


def by_hand(nodes, run, teacher, *more):
    """Start the teacher on the second node and the run, with its student, on the first."""
    at = f"{nodes.names[0]}:31415"
    words = ("serve", teacher, "--mode", "inet", "--address", at, "--structure", "start.extxyz")
    driver = nodes.start(1, *SILENT, *words, "--reconnect", cwd=run, log="teacher.log")
    words = ("run", "input.xml", "--elsewhere", f"teacher={at}", *more)
    return nodes.start(0, MTS, *words, cwd=run, log="run.log"), driver


def assert_same(run, alone, *, rtol=0.0):
    np.testing.assert_allclose(properties(run), properties(alone), rtol=rtol)


def test_the_teacher_on_the_second_node(nodes, tmp_path):
    """The batch script as it stands, with SO3LR, on one rank to save time, and a student."""
    pytest.importorskip("so3krates_torch")
    pytest.importorskip("mpi4py")
    run = make_run(tmp_path / "run", steps=4, **WATER).parent
    job = nodes.submit(CLUSTER / "two_nodes.sbatch", run, SLURM_NTASKS_PER_NODE="1")
    assert job.wait(LONG_S) == 0, said(tmp_path / "job.out") + said(run / "teacher.log")
    summary = json.loads(said(run / "summary.json"))
    assert summary["completed"] and summary["holes"] == 0
    assert "teacher: driver connected (10.77.0.2)" in said(tmp_path / "job.out")
    wait_for(lambda: not nodes.pids(1), what="end of the teacher")


def test_a_driver_behind_a_cable_that_was_cut_says_so_and_comes_back(nodes, tmp_path):
    """No packet tells it: the kernel asks, and two seconds are ninety outside of tests."""
    run = make_run(tmp_path / "run", mode="unix", n=1).parent
    server = nodes.start(0, sys.executable, "-c", LISTEN, cwd=run, log="server.log")
    words = ("serve", STUDENT, "--mode", "inet", "--address", "10.77.0.1:31415", "--reconnect")
    log = "driver.log"
    nodes.start(1, *SILENT, *words, "--structure", "start.extxyz", cwd=run, log=log)
    connected = "connected to 10.77.0.1"
    wait_for(lambda: said(run / log).count(connected) == 2, what="second connection")
    nodes.cable("down")
    wait_for(lambda: "the connection to the server failed" in said(run / log), what="notice")
    assert server.poll() is None
    nodes.cable("up")
    assert server.wait(LONG_S) == 0  # it had all three


def test_clients_of_other_machines_need_a_key_that_the_server_knows(nodes, tmp_path):
    run = make_run(tmp_path / "run", mode="unix", n=1).parent
    for keys in ("keys", "others"):
        make_keys(run / keys, "client")
    (run / "others" / "server.key").write_text((run / "keys" / "server.key").read_text())
    address = "tcp://10.77.0.2:5555"
    words = ("serve", STUDENT, "--zmq", address, "--keys", "keys", "--structure", "start.extxyz")
    nodes.start(1, MTS, *words, cwd=run, log="server.log")
    ask = (
        "import sys; from pathlib import Path; from mts_driver.drivers.zmq.client import Client\n"
        "from mts_driver.drivers.zmq.messages import Message\n"
        "for keys in sys.argv[2:]:\n"
        "    try:\n"
        "        client = Client(sys.argv[1], keys=Path(keys) if keys else None)\n"
        "        print(client.ask(Message('hello', {'model': ''})).values['model'], flush=True)\n"
        "    except Exception as error:\n"
        "        print(error)\n"
    )
    words = (sys.executable, "-c", ask, address, "keys", "others", "")
    assert nodes.start(0, *words, cwd=run, log="client.log").wait(LONG_S) == 0
    served, unknown, none = said(run / "client.log").splitlines()
    assert served == STUDENT
    assert "does not know the key in others" in unknown
    assert "make keys with `mts keys DIR`" in none


@pytest.mark.slow
def test_ranks_on_the_second_node_give_the_trajectory_of_one_machine(nodes, tmp_path):
    pytest.importorskip("so3krates_torch")
    pytest.importorskip("mpi4py")
    alone, run = twin(tmp_path, **WATER)
    job = nodes.submit(CLUSTER / "two_nodes.sbatch", run, SLURM_NTASKS_PER_NODE="2")
    assert job.wait(LONG_S) == 0, said(tmp_path / "job.out")
    assert_same(run, alone, rtol=1e-4)


@pytest.mark.slow
def test_a_cable_that_comes_back_leaves_the_trajectory_of_one_machine(nodes, tmp_path):
    alone, run = twin(tmp_path, mode="unix", n=1)
    gate = Gate(tmp_path)
    started, driver = by_hand(nodes, run, gate.model)
    gate.wait_for(lambda: steps_done(run) > 3, what="steps")
    nodes.cable("down")
    gate.open()
    time.sleep(0.5)
    before = steps_done(run)
    nodes.cable("up")
    assert started.wait(LONG_S) == 0, said(run / "run.log")
    assert before < 30
    assert_same(run, alone)
    assert driver.poll() is None  # --reconnect: until somebody ends it


@pytest.mark.slow
def test_a_cable_that_stays_cut_is_said_and_the_run_goes_on_elsewhere(nodes, tmp_path):
    short = (("<timeout> 600 </timeout>", "<timeout> 2 </timeout>"),)
    alone, run = twin(tmp_path, mode="unix", n=1, replace=short)
    gate = Gate(tmp_path)
    started, driver = by_hand(nodes, run, gate.model, "--baseline-steps", 0)
    gate.wait_for(lambda: steps_done(run) > 3, what="steps")
    nodes.cable("down")
    gate.open()
    log = run / "run.log"
    wait_for(lambda: "no driver is left, and i-PI waits" in said(log), what="notice")
    wait_for(lambda: "the connection to the server failed" in said(run / "teacher.log"))
    started.send_signal(signal.SIGUSR1)
    assert started.wait(LONG_S) == 130
    assert "RESTART has been written: continue with `mts run input.xml --restart --elsewhere" in (
        said(log)
    )
    assert json.loads(said(run / "summary.json"))["ended_by"] == "SIGUSR1"
    # the address of the node that was lost is in RESTART, and gives way
    nodes.cable("up")
    driver.terminate()
    again, _ = by_hand(nodes, run, TEACHER, "--restart", "--baseline-steps", 0)
    assert again.wait(LONG_S) == 0, said(log)
    assert_same(run, alone, rtol=1e-9)


@pytest.mark.slow
def test_a_run_that_ends_with_its_driver(nodes, tmp_path):
    """i-PI's own way for runs that nobody watches."""
    way = (("<timeout> 600 </timeout>", f"<timeout> 600 </timeout> {EXIT}"),)
    run = make_run(tmp_path / "run", mode="unix", n=1, replace=way).parent
    gate = Gate(tmp_path)
    started, driver = by_hand(nodes, run, gate.model)
    gate.wait_for(lambda: steps_done(run) > 3, what="steps")
    driver.kill()
    assert started.wait(LONG_S) == 0
    assert "a driver that went away" in said(run / "run.log")
    assert (run / "RESTART").exists()


@pytest.mark.slow
def test_a_unix_socket_through_ssh(nodes, tmp_path):
    """The driver knows nothing of it; the server of ssh is asyncssh, the client the usual one."""
    pytest.importorskip("asyncssh")
    if shutil.which("ssh") is None:
        pytest.skip("there is no ssh")
    mine = ((f"{TEACHER},", f"{TEACHER}, start: no,"),)
    alone, _ = twin(tmp_path, mode="unix", n=1)
    run = make_run(tmp_path / "ssh", mode="unix", n=1, steps=30, replace=mine).parent
    started = nodes.start(0, MTS, "run", "input.xml", cwd=run, log="run.log")
    there = sockets_of(run / "input.xml")[0]
    wait_for(there.exists, what="socket")
    nodes.start(0, sys.executable, "-c", SSHD, cwd=run, log="sshd.log")
    wait_for(lambda: "listens" in said(run / "sshd.log"), what="server of ssh")
    here = tmp_path / "here"
    options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", "2222")
    words = (*options, "-N", "-L", f"{here}:{there}", "me@10.77.0.1")
    nodes.start(1, "ssh", *words, cwd=run, log="ssh.log")
    wait_for(here.exists, what="socket of ssh")
    words = ("serve", TEACHER, "--address", here, "--structure", "start.extxyz")
    nodes.start(1, MTS, *words, cwd=run, log="teacher.log")
    assert started.wait(LONG_S) == 0, said(run / "run.log")
    assert_same(run, alone)


@pytest.mark.slow
def test_beads_on_all_nodes_in_a_chain_of_jobs(nodes, tmp_path):
    """The first job is told that its time is over; the second finds other ports, and goes on."""
    half = (("<batch_size> 4 </batch_size>", "<batch_size> 2 </batch_size>"),)
    alone, run = twin(tmp_path, mode="unix", n=1, beads=4, hydrogen_mass=0.0, replace=half)
    gate = Gate(tmp_path)
    script, out = CLUSTER / "beads.sbatch", tmp_path / "job.out"
    first = nodes.submit(script, run, TEACHER=gate.model)
    gate.wait_for(lambda: steps_done(run) > 3, what="steps")
    os.kill(nodes.pids(1)[0], signal.SIGKILL)  # the other driver takes its beads
    gate.wait_for(lambda: steps_done(run) > 6, what="steps of one driver")
    first.send_signal(signal.SIGUSR1)
    wait_for(lambda: "stopping i-PI" in said(out), what="the word")
    gate.open()
    assert first.wait(LONG_S) == 130, said(out)
    assert "2 drivers connected" in said(out) or "10.77.0.1, 10.77.0.2" in said(out)
    assert "teacher: driver connected (10.77.0.1)" in said(out)
    assert 6 < steps_done(run) < 30
    second = nodes.submit(script, run, job=2, TEACHER=TEACHER)
    assert second.wait(LONG_S) == 0, said(out)
    assert_same(run, alone, rtol=1e-9)
    third = nodes.submit(script, run, job=3, TEACHER=TEACHER)  # there is nothing left to do
    assert third.wait(LONG_S) == 0 and "20003" not in said(out)


@pytest.mark.slow
def test_a_job_of_two_kinds_of_nodes(nodes, tmp_path):
    alone, run = twin(tmp_path, mode="unix", n=1)
    job = nodes.submit(CLUSTER / "cpu_and_gpu.sbatch", run, TEACHER=TEACHER, DEVICE="cpu")
    assert job.wait(LONG_S) == 0, said(tmp_path / "job.out")
    assert_same(run, alone)


@pytest.mark.slow
def test_replicas_that_exchange_and_a_teacher_that_cannot_start(nodes, tmp_path):
    pytest.importorskip("mpi4py")
    models = {**WATER, "teacher": "student:general", "mode": "unix"}
    alone, run = twin(tmp_path, steps=12, exchange_K=(320.0,), **models)
    script, ranks = CLUSTER / "two_nodes.sbatch", {"SLURM_NTASKS_PER_NODE": "2"}
    broken = nodes.submit(script, run, TEACHER="student:no-such-file", **ranks)
    assert broken.wait(LONG_S) != 0  # and does not wait until its time is over
    assert "no-such-file" in said(run / "teacher.log")
    job = nodes.submit(script, run, job=2, TEACHER="student:general", **ranks)
    assert job.wait(LONG_S) == 0, said(tmp_path / "job.out")
    for name in ("replica0_simulation.out", "replica1_simulation.out"):
        files = [np.loadtxt(folder / name) for folder in (run, alone)]
        np.testing.assert_allclose(*files, rtol=1e-4)


@pytest.mark.slow
def test_inner_loops_on_another_machine_behind_keys(nodes, tmp_path):
    """The student and the loop over ZeroMQ; the teacher, by a socket, beside i-PI."""
    keys = tmp_path / "keys"
    make_keys(keys, "client")
    alone, run = twin(tmp_path, mode="zmq", n=1)
    text = said(run / "input.xml")
    at = text[text.index("ipc://") : text.index(",", text.index("ipc://"))]
    (run / "input.xml").write_text(text.replace(at, f"tcp://10.77.0.2:1, keys: {keys}"))
    address = "tcp://10.77.0.2:5555"
    words = ("serve", STUDENT, "--zmq", address, "--keys", keys, "--structure", "start.extxyz")
    nodes.start(1, MTS, *words, cwd=run, log="student.log")
    words = ("run", "input.xml", "--elsewhere", f"student={address}")
    assert nodes.start(0, MTS, *words, cwd=run, log="run.log").wait(LONG_S) == 0, said(
        run / "run.log"
    )
    assert_same(run, alone)
