"""Every end of a run is a sentence, leaves what `--restart` needs, and never hangs."""

import json
import os
import re
import resource
import shlex
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.io import read
from running import (
    MTS,
    Gate,
    assert_nothing_is_left,
    environment,
    family,
    here,
    make_run,
    mts,
    properties,
    start,
    steps_done,
    toy_water,
    wait_for,
)

from mts_driver.errors import UserError
from mts_driver.runs.launcher import Launcher, load
from mts_driver.structures.files import write_start
from mts_driver.structures.masses import repartitioned_masses

LJ = "ase:ase.calculators.lj:LennardJones?sigma=3.4&epsilon"


def summary_of(input_xml: Path) -> dict:
    return json.loads((input_xml.parent / "summary.json").read_text())


def go_on_as_told(output: str, *more: object) -> subprocess.CompletedProcess[str]:
    """Paste the command of a message into a shell's words."""
    command = shlex.split(re.search(r"`(mts run [^`]*--restart)`", output).group(1))
    return mts(*command[1:], *more, "--baseline-steps", 0)


def test_exit_left_over_is_removed_and_said(tmp_path, cases):
    """The case exit_left_over: i-PI leaves the file, and the next run met it."""
    run = tmp_path / "run"
    made = here(
        *("prepare", cases / "exit_left_over" / "dimer.xyz", "-o", run, "--student", "water"),
        *("--teacher", "student:water", "--steps", 4, "--stride", 2, "--equilibrate-ps", 0),
    )
    assert made.returncode == 0, made.stderr
    (run / "EXIT").touch()
    done = mts("run", run / "input.xml", "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr
    assert "removed the file EXIT" in done.stderr
    assert not (run / "EXIT").exists()
    assert summary_of(run / "input.xml")["completed"] is True
    assert summary_of(run / "input.xml")["ended_by"] is None


@pytest.mark.parametrize("how", ["EXIT", "total_time"])
def test_a_run_that_ends_early_says_why_and_goes_on(tmp_path, how):
    # a folder whose name a shell would take apart
    clock = [("<total_steps>", "<total_time> 1 </total_time>\n  <total_steps>")]
    replace = clock if how == "total_time" else []
    input_xml = make_run(tmp_path / "it's a run", steps=100_000, replace=replace)
    process = start("run", input_xml, "--baseline-steps", 0, "--quiet")
    if how == "EXIT":
        wait_for(lambda: steps_done(input_xml.parent) >= 3, what="third step")
        (input_xml.parent / "EXIT").touch()
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    summary = summary_of(input_xml)
    done = summary["steps"]
    cause = "the file EXIT" if how == "EXIT" else "the wall-clock time of <total_time>"
    assert f"ended by {cause} at step {done} of 100000. RESTART has been written" in output
    assert (summary["completed"], summary["ended_by"]) == (False, cause)
    assert not (input_xml.parent / "EXIT").exists()
    assert_nothing_is_left(input_xml)
    if how == "total_time":  # which is that of the continued run as well
        again = go_on_as_told(output)
        assert again.returncode == 0, again.stderr
        assert f"ended by {cause} at step " in again.stderr
        assert summary_of(input_xml)["first_step"] == done
        return
    again = go_on_as_told(output, "--steps", done + 3)
    assert again.returncode == 0, again.stderr
    assert properties(input_xml.parent)[:, 0].tolist() == list(range(done + 4))
    assert summary_of(input_xml)["completed"] is True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_can_be_stopped_during_its_first_force(tmp_path, number):
    gate = Gate(tmp_path)
    input_xml = make_run(tmp_path / "run", teacher=gate.model, steps=2)
    process = start("run", input_xml, "--baseline-steps", 0, "--steps", 3)
    # i-PI has opened its outputs, and only forces are missing
    gate.wait_for((input_xml.parent / "simulation.out").exists, what="output")
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 130, output
    assert "Error" not in (input_xml.parent / "i-pi.log").read_text()
    assert "killed" not in output
    summary = summary_of(input_xml)
    assert (summary["steps"], summary["completed"]) == (0, False)
    assert summary["ended_by"] == "Ctrl-C or SIGTERM"
    assert f"continue with `mts run {input_xml} --restart --steps 3`" in output
    assert_nothing_is_left(input_xml)
    if number == signal.SIGINT:
        gate.open()
        again = mts("run", input_xml, "--restart", "--steps", 3, "--baseline-steps", 0)
        assert again.returncode == 0, again.stderr
        other = make_run(tmp_path / "whole", steps=3)
        assert mts("run", other, "--baseline-steps", 0, "--quiet").returncode == 0
        assert np.array_equal(properties(input_xml.parent), properties(other.parent))


def by_hand(input_xml: Path, role: str = "teacher") -> str:
    """Take the model out of an <ffsocket>, and return its address."""
    text = input_xml.read_text()
    block = re.search(rf"<ffsocket name='{role}'.*?</ffsocket>", text, re.S).group()
    bare = re.sub(r"\n\s*<parameters>.*?</parameters>", "", block)
    input_xml.write_text(text.replace(block, bare))
    return re.search(r"<address> (\S+) </address>", block).group(1)


class WrongClient(threading.Thread):
    """Speaks i-PI's protocol well, and answers for one atom too many."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.path = path

    def run(self) -> None:
        link = socket.socket(socket.AF_UNIX)
        wait_for(lambda: not link.connect_ex(self.path), timeout=180, what="socket")
        with link, link.makefile("rb") as stream:
            while message := stream.read(12).strip():
                if message == b"STATUS":
                    link.sendall(b"READY".ljust(12))
                elif message == b"POSDATA":
                    stream.read(8 * 18)
                    (natoms,) = struct.unpack("=i", stream.read(4))
                    stream.read(24 * natoms)
                elif message == b"GETFORCE":
                    n = natoms + 1
                    link.sendall(b"FORCEREADY".ljust(12) + struct.pack("=di", 0.0, n))
                    link.sendall(bytes(24 * n + 72) + struct.pack("=i", 0))
                else:
                    return


@pytest.mark.parametrize("systems", [1, 2])
def test_when_a_thread_of_ipi_dies_the_run_ends(tmp_path, systems):
    """With two systems the sockets belong to a polling thread, and the main one waits for it."""
    exchange = {"exchange_K": (310.0,)} if systems == 2 else {}
    input_xml = make_run(tmp_path / "run", steps=50, **exchange)
    client = WrongClient(f"/tmp/ipi_{by_hand(input_xml)}")
    client.start()
    done = mts("run", input_xml, "--baseline-steps", 0)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    thread = "its thread 'poll_teacher' died: InvalidSize: " if systems == 2 else ""
    assert f"i-PI stopped: {thread}a driver answered for another number of atoms" in done.stderr
    assert "ended with exit code" not in done.stderr
    log = (input_xml.parent / "i-pi.log").read_text()
    assert "Traceback" in log and "InvalidSize" in log
    assert summary_of(input_xml)["completed"] is False
    client.join(10)
    assert_nothing_is_left(input_xml)
    if systems == 2:  # with a driver that can count, the run goes on
        model = "{ model: ase:toy_calculators:ToyWater, device: cpu }"
        restart = input_xml.parent / "RESTART"
        text = restart.read_text()
        socket_of_teacher = re.search(r"<ffsocket[^>]*'teacher'.*?</ffsocket>", text, re.S).group()
        served = socket_of_teacher.replace(
            "</ffsocket>", f"<parameters> {model} </parameters></ffsocket>"
        )
        restart.write_text(text.replace(socket_of_teacher, served))
        again = mts("run", input_xml, "--restart", "--steps", 2, "--baseline-steps", 0)
        assert again.returncode == 0, again.stderr
        steps = np.loadtxt(input_xml.parent / "replica1_simulation.out")[:, 0]
        assert steps.tolist() == [0, 1, 2]


def test_a_teacher_by_hand_and_a_committee_have_a_picture(tmp_path, cases):
    """The case teacher_by_hand: their calls are not counted, and the picture needs no count."""
    run = tmp_path / "run"
    made = here(
        *("prepare", cases / "teacher_by_hand" / "ar4.extxyz", "-o", run, "--mode", "unix"),
        *("--teacher", f"{LJ}=0.0104", "--student", f"{LJ}=0.012", "--outer-fs", 4),
        *("--inner-fs", 2, "--steps", 10, "--stride", 5, "--equilibrate-ps", 0),
        *("--hydrogen-mass-Da", 0),
    )
    assert made.returncode == 0, made.stderr
    input_xml = run / "input.xml"
    whole = input_xml.read_text()
    address = by_hand(input_xml)
    driver = start(
        *("serve", f"{LJ}=0.0104", "--address", address, "--structure", run / "start.extxyz"),
        *("--threads", 1, "--quiet"),
    )
    try:
        done = mts("run", input_xml, "--baseline-steps", 2)
        assert done.returncode == 0, done.stderr
        assert driver.communicate(timeout=180)[0] == ""
    finally:
        driver.kill()
    assert f"picture: {run / 'report.png'}" in done.stderr
    summary = summary_of(input_xml)
    assert summary["teacher_calls"] is None and "by hand" in summary["teacher_reason"]
    assert summary["student_calls"] == 21 and summary["speedup_vs_single_step"] > 0
    assert here("report", run).returncode == 0
    energies = properties(run)[:, 3]
    # the same teacher, of two sockets in a committee, which mts run starts
    block = re.search(r"<ffsocket name='teacher'.*?</ffsocket>", whole, re.S).group()
    members = block.replace("'teacher'", "'one'") + block.replace("'teacher'", "'two'").replace(
        address, f"{address}2"
    )
    committee = f"<ffcommittee name='teacher'>{members}</ffcommittee>"
    input_xml.write_text(whole.replace(block, committee))
    done = mts("run", input_xml, "--baseline-steps", 2)
    assert done.returncode == 0, done.stderr
    assert "picture: " in done.stderr and "starting two: " in done.stderr
    assert np.allclose(properties(run)[:, 3], energies, rtol=0, atol=1e-9)
    assert here("report", run).returncode == 0


def test_an_input_that_ipi_gives_up_on_ends_with_its_words(tmp_path):
    """Which it does by a soft exit while it reads, before there is anything to report."""
    both = "<fixatoms> [ 0 ] </fixatoms><fixatoms_dof> [ 3 ] </fixatoms_dof>"
    motion = "<motion mode='dynamics'>"
    input_xml = make_run(tmp_path / "run", replace=[(motion, motion + both)])
    with pytest.raises(UserError, match="i-PI stopped: Please specify either fixatoms or fixato"):
        Launcher(load(input_xml)).execute()


def test_an_isolated_start_with_held_atoms_goes_on_as_if_it_had_not_stopped(tmp_path):
    """What the start says is not in RESTART, whose <parameters> and <fixatoms_dof> say it."""
    outputs = []
    for name, steps in (("whole", 6), ("broken", 3)):
        input_xml = make_run(
            *(tmp_path / name,),
            **{"steps": steps},
            replace=[
                ("device: cpu }", "device: cpu, periodic: no }"),
                ("<motion mode='dynamics'>", "<motion mode='dynamics'><fixatoms> [ 0, 1, 2 ] "),
                ("<dynamics mode", "</fixatoms><dynamics mode"),
            ],
        )
        atoms = toy_water()
        atoms.pbc = False
        atoms.set_constraint(FixAtoms([0, 1, 2]))
        write_start(input_xml.parent / "start.extxyz", atoms, repartitioned_masses(atoms, 4.0))
        done = mts("run", input_xml, "--baseline-steps", 0)
        if steps == 3:
            done = mts("run", input_xml, "--restart", "--steps", 6, "--baseline-steps", 0)
        assert done.returncode == 0, done.stderr
        outputs.append((input_xml.parent / "simulation.pos_0.xyz").read_text())
    assert outputs[0] == outputs[1]
    frames = read(tmp_path / "broken" / "simulation.pos_0.xyz", ":", format="xyz")
    moved = np.abs(frames[-1].positions - frames[0].positions).max(axis=1)
    assert (moved[:3] == 0).all() and moved[3:].min() > 0


def test_a_run_never_fails_for_its_picture(tmp_path, cases):
    """The case folder_not_writable: its picture does not fit, and a report has no place."""
    assert (cases / "folder_not_writable").is_dir()
    input_xml = make_run(tmp_path / "run", steps=2)
    limit = 40 * 1024  # bytes a file; checkpoints need 20, and the picture 100
    done = subprocess.run(
        [MTS, "run", input_xml, "--baseline-steps", "0"],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no picture (OSError: " in done.stderr and "Traceback" not in done.stderr
    assert f"try again with mts report {input_xml.parent}" in done.stderr
    assert not list(input_xml.parent.glob("report*"))
    assert summary_of(input_xml)["completed"] is True
    (input_xml.parent / "report.png").mkdir()
    done = mts("run", input_xml, "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr
    assert "no picture: picture=" in done.stderr and "is a folder" in done.stderr


def test_files_that_cannot_be_written_are_refused_before_anything_starts(tmp_path):
    input_xml = make_run(tmp_path / "run", steps=2)
    for name in ("i-pi.log", "student.log"):
        (input_xml.parent / name).mkdir()
        with pytest.raises(UserError, match=f"{name} is a folder"):
            Launcher(load(input_xml)).execute()
        (input_xml.parent / name).rmdir()
    (input_xml.parent / "summary.json").mkdir()
    done = mts("run", input_xml)
    assert done.returncode == 2
    assert "summary.json is a folder" in done.stderr and "Traceback" not in done.stderr
    (input_xml.parent / "summary.json").rmdir()
    done = mts("run", input_xml, "--json", tmp_path / "none" / "copy.json")
    assert done.returncode == 2 and "the folder '" in done.stderr
    assert not (input_xml.parent / "simulation.out").exists()
    assert not family(input_xml.parent)
