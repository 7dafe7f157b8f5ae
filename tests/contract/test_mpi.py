"""Drivers of several processes under the real mpiexec, i-PI and the real models."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from running import LONG_S, environment, make_run, mts, start, steps_done, wait_for

from mts_driver.analysis.properties import read_properties
from mts_driver.drivers.zmq.client import Client
from mts_driver.drivers.zmq.messages import Message
from mts_driver.potentials import load_potential
from mts_driver.runs.driver_process import mpiexec
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.run_folder import write_run_folder
from mts_driver.structures.held_bonds import distances, held_pairs, on_manifold
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.tensors import cell_of
from mts_driver.units import BOHR_A

pytest.importorskip("mpi4py")
pytest.importorskip("so3krates_torch")
WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"


HELD = {"constrained": True, "high_pass": True, "inner_fs": 2.0}


def water_run(folder, *, ranks, teacher="so3lr", steps=4, **choices):
    """Two drivers behind sockets, or one that takes the outer steps."""
    atoms = read(WATER64)
    options = {"outer_fs": 4.0, "inner_fs": 1.0, "hydrogen_mass": 4.0, "temperature_K": 300.0}
    options |= {"friction_per_ps": 1.0, "steps": steps, "stride": 1, "seed": 7} | choices
    settings = RunSettings(teacher=teacher, student="student:water", **options)

    def edit(xml):
        assert "device: cpu" in xml
        return xml.replace("device: cpu", f"device: cpu, threads: 1, ranks: {ranks}")

    masses = repartitioned_masses(atoms, 4.0)
    held = None
    if settings.constrained:
        held = distances(held_pairs(atoms), {"O(HH)-H": 0.982})
        atoms.positions, _ = on_manifold(atoms, masses, held)
    return write_run_folder(folder, atoms, masses, settings, edit=edit, held=held)


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param({}, id="unix", marks=pytest.mark.slow),
        pytest.param({"mode": "zmq", "device_steps": 2}, id="steps"),
        pytest.param({"mode": "zmq", "device_steps": 2, **HELD}, id="steps, held"),
        pytest.param(
            {"mode": "zmq", "device_steps": 2, "teacher": "so3lr?backend=device"},
            id="steps, device",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_on_ranks_is_the_run(tmp_path, choices):
    energies = {}
    for ranks in (1, 2):
        run = water_run(tmp_path / str(ranks), ranks=ranks, **choices)
        done = mts("run", run, "--baseline-steps", 0)
        assert done.returncode == 0, done.stderr
        found = read_properties(run.parent / "simulation.out")
        energies[ranks] = found["potential"], found["conserved"]
        # how far a driver is ahead at the end is a race
        assert json.loads((run.parent / "summary.json").read_text())["teacher_calls"] >= 4
    np.testing.assert_allclose(energies[2], energies[1], rtol=0, atol=5e-3)  # of 1e4 eV


def ranks_of(folder):
    """Processes that run in a folder, mpiexec itself apart."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            here = (entry / "cwd").resolve() == folder.resolve()
        except (OSError, PermissionError):
            continue
        if here and b"--mpi" in command and b"mpiexec" not in command[0]:
            found.append(int(entry.name))
    return sorted(pid for pid in found if pid != os.getpid())


@pytest.mark.parametrize("when", ["loading", "stepping"])
def test_a_rank_that_dies_ends_the_driver_and_leaves_none(tmp_path, when):
    run = water_run(tmp_path, ranks=2, teacher="student:general", steps=10_000)
    process = start("run", run, "--baseline-steps", 0)
    try:
        wait_for(lambda: process.poll() is not None or len(ranks_of(tmp_path)) >= 4)
        if when == "stepping":
            wait_for(lambda: process.poll() is not None or steps_done(tmp_path) > 2)
        os.kill(ranks_of(tmp_path)[1], signal.SIGKILL)
        said, _ = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert process.returncode == 1 or process.returncode == 2, said
    assert "ended with exit code" in said or "was killed" in said
    wait_for(lambda: not ranks_of(tmp_path))
    if when == "stepping":
        assert (tmp_path / "RESTART").exists() and "--restart" in said


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("device: cpu", "device: cpu, ranks: two", "ranks: 'two': write a whole number"),
        ("device: cpu", "device: cpu, ranks: 2", "say within how many Å atoms matter"),
    ],
)
def test_ranks_that_cannot_be_are_refused_before_anything_starts(tmp_path, old, new, message):
    run = make_run(tmp_path, replace=[(old, new)])
    done = mts("run", run, "--baseline-steps", 0)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def finished(command, folder):
    options = {"capture_output": True, "text": True, "timeout": LONG_S, "check": False}
    return subprocess.run(command, cwd=folder, env=environment(), **options)


def serve_on(ranks, folder, *words):
    command = [*mpiexec("test", str(ranks)), sys.executable, "-P", "-m", "mts_driver.cli.serve"]
    return finished([*command, *map(str, words), "--mpi"], folder)


def test_more_ranks_than_atoms_and_elements_that_are_not_known(tmp_path):
    (tmp_path / "two.xyz").write_text("2\n\nO 0 0 0\nH 0 0 1\n")
    (tmp_path / "si.xyz").write_text("2\n\nSi 0 0 0\nH 0 0 1.5\n")
    shared = ("--address", "nobody", "--timeout", "5")
    done = serve_on(3, tmp_path, "student:water", "--structure", "two.xyz", *shared)
    assert done.returncode != 0 and "3 ranks for 2 atoms" in done.stderr
    done = serve_on(2, tmp_path, "so3lr", "--structure", "si.xyz", *shared)
    assert done.returncode != 0 and "Si" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["evaluate", pytest.param("run", marks=pytest.mark.slow)])
def test_what_fails_on_one_rank_ends_all_even_if_a_client_could_go_on(tmp_path, kind):
    """Over ZeroMQ an error is an answer, for which the other rank would wait for ever."""
    address = f"ipc://{tmp_path}/driver"
    words = ("student:general", "--student", "student:water", "--zmq", address)
    command = [*mpiexec("test", "2"), sys.executable, "-P", "-m", "mts_driver.cli.serve", *words]
    command += ["--structure", str(WATER64), "--mpi", "--threads", "1"]
    pipe = subprocess.PIPE
    driver = subprocess.Popen(command, env=environment(), stderr=pipe, text=True)
    atoms = read(WATER64)
    q, n = atoms.positions[None] / BOHR_A, len(atoms)
    q[0, 1] = q[0, 0]  # both are of one rank
    arrays = {"q": q, "cell": atoms.cell.array[None] / BOHR_A}
    values = {"model": "student:general"}
    if kind == "run":
        values = {"n": 1, "timestep": 40.0, "kT": 1e-3, "clip": 0.0, "seeds": [1]}
        arrays |= {"p": np.zeros((1, n, 3)), "masses": np.ones(n), "groups": np.ones((1, n), bool)}
        arrays |= dict.fromkeys(("friction", "modes", "omega"), np.zeros(0))
        arrays["cell"] = arrays["cell"][0]
    try:
        client = Client(address, timeout_s=LONG_S)
        client.begin(Message(kind, values, arrays))
        _, said = driver.communicate(timeout=LONG_S)
    finally:
        driver.kill()
    assert driver.returncode != 0 and "lies where another one does" in said, said
    assert "Traceback" not in said


WATER64_MPI = WATER64.parents[1] / "water64_mpi"


def one_job(folder, teacher, *, steps=2, ranks=2):
    """i-PI and its drivers as inputs/water64_mpi/run.sh starts them."""
    for name in ("input.xml", "register.py", "start.extxyz"):
        text = (WATER64_MPI / name).read_text()
        text = text.replace("<total_steps> 500", f"<total_steps> {steps}")
        (folder / name).write_text(text.replace("stride='5'", "stride='1'"))
    script = (WATER64_MPI / "run.sh").read_text()
    words = script.split("\n", 1)[1].replace("\\\n", " ").split()
    assert words[:4] == ["mpiexec", "-n", "1", "i-pi"]
    words[0] = mpiexec("test", "2")[0]
    words = [teacher if word == "so3lr" else word for word in words]
    words[words.index("2")] = str(ranks)
    return finished(words, folder)


def test_ipi_and_its_drivers_in_one_job(tmp_path):
    done = one_job(tmp_path, "so3lr")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "so3lr: the server said exit; 3 calls" in done.stderr
    assert "student:water: the server said exit; 13 calls" in done.stderr
    found = read_properties(tmp_path / "simulation.out")
    atoms = read(WATER64)
    alone = load_potential("so3lr", atoms.numbers.tolist())
    energy = float(alone(torch.tensor(atoms.positions), cell_of(atoms)).energy)
    assert found["potential"][0] == pytest.approx(energy, abs=5e-3)
    assert np.ptp(found["conserved"]) < 0.2  # of 64 waters, of which the first steps heat none


IPI_ENDS = """
from ipi.utils.softexit import softexit
from integrators.ipi.plugin import register
from mpi4py import MPI
register()
softexit.hard_exit = True  # as i-PI's command does
softexit.trigger("success")
"""
DRIVER_LINGERS = """
import time
from mpi4py import MPI
MPI.Finalize()
time.sleep(1.0)
print("out in peace", flush=True)
"""


def test_drivers_that_leave_after_ipi_are_not_killed(tmp_path):
    """MPICH kills them where i-PI ends by os._exit alone."""
    python = [sys.executable, "-c"]
    ipi, driver = ["-n", "1", *python, IPI_ENDS], ["-n", "3", *python, DRIVER_LINGERS]
    words = [mpiexec("test", "2")[0], *ipi, ":", *driver]
    done = finished(words, tmp_path)
    assert done.returncode == 0 and done.stdout.count("out in peace") == 3, done.stdout


@pytest.mark.slow
def test_one_job_is_the_run_through_sockets(tmp_path):
    (tmp_path / "job").mkdir()
    assert one_job(tmp_path / "job", "so3lr", steps=4).returncode == 0
    options = {"outer_fs": 6.0, "seed": 20260, "mode": "unix"}
    run = water_run(tmp_path / "run", ranks=1, **options)
    assert mts("run", run, "--baseline-steps", 0).returncode == 0
    job, sockets = (
        read_properties(tmp_path / name / "simulation.out")["potential"] for name in ("job", "run")
    )
    np.testing.assert_allclose(job, sockets, rtol=0, atol=5e-3)


@pytest.mark.slow
def test_a_job_that_asks_for_another_model_ends_with_a_sentence(tmp_path):
    done = one_job(tmp_path, "student:general", ranks=1)
    assert done.returncode != 0 and "asks for 'so3lr'" in done.stderr
    assert "Traceback" not in done.stderr


def test_mpi_name_without_ipi_is_refused(tmp_path):
    done = serve_on(2, tmp_path, "student:water", "--structure", WATER64, "--mpi-name", "teacher")
    assert done.returncode != 0 and "the first process of the same job" in done.stderr


def test_mts_run_says_how_an_ffmpi_is_run():
    done = mts("run", WATER64_MPI / "input.xml")
    assert done.returncode == 2 and "mpiexec -n 1 i-pi input.xml" in done.stderr
