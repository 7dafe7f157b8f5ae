"""Programs that are clients of i-PI's protocol as models: real ones, behind a real socket."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.calculators.socketio import SocketIOCalculator
from ase.io import read
from running import LONG_S, MTS, environment, here, mts, toy_water, wait_for
from toy_calculators import ToyWater

import mts_driver
from mts_driver.errors import UserError
from mts_driver.interfaces.ase import PotentialCalculator, RespaBAOAB
from mts_driver.potentials import load_potential
from mts_driver.structures.files import write_start
from mts_driver.structures.tensors import cell_of
from mts_driver.units import BOHR_A, HARTREE_EV

FS = units.fs
WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"


@pytest.fixture
def connect(tmp_path):
    """Start programs that connect to a socket as soon as it is there."""
    started = []

    def start(*command):
        log = (tmp_path / f"{len(started)}.log").open("w")
        started.append(
            subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=environment())
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()


def name_of(tmp_path):
    return f"test-{os.getpid()}-{tmp_path.name[-20:]}"


def test_a_driver_of_ipi_is_a_model(tmp_path, connect):
    """i-PI's own, an oscillator for every atom: waits for the socket, and knows no elements."""
    name, atoms = name_of(tmp_path), toy_water(1)
    potential = load_potential(f"socket:{name}", atoms.numbers)
    driver = Path(sys.executable).with_name("i-pi-py_driver")
    connect(driver, "-u", "-a", name, "-m", "harmonic", "-o", "0.5")
    import torch

    for shift in (0.0, 0.7):
        x = torch.tensor(atoms.positions + shift)
        found = potential(x, cell_of(atoms))
        k = 0.5 * HARTREE_EV / BOHR_A**2
        np.testing.assert_allclose(found.forces.numpy(), -k * x.numpy(), rtol=1e-6)
        assert float(found.energy) == pytest.approx(0.5 * k * float((x**2).sum()), rel=1e-6)
    again = load_potential(f"socket:{name}", atoms.numbers)  # the same program
    np.testing.assert_array_equal(again(x, cell_of(atoms)).forces, found.forces)
    for other in (atoms.numbers[:2], atoms.numbers[::-1]):
        with pytest.raises(UserError, match=r"a program for 3 atoms, and is asked about"):
            load_potential(f"socket:{name}", other)


def test_a_trajectory_and_a_check_with_a_program_are_those_of_its_model(tmp_path, connect):
    """`mts serve` is such a program; here of SO3LR, in a process of its own."""
    pytest.importorskip("so3krates_torch")
    name = name_of(tmp_path)
    options = {"student": "water", "outer_fs": 4, "inner_fs": 1, "steps": 3, "seed": 1}
    alone = mts_driver.simulate(WATER64, progress=False, **options)
    connect(MTS, "serve", "so3lr", "--address", name, "--structure", WATER64, "--threads", "1")
    run = mts_driver.simulate(WATER64, teacher=f"socket:{name}", progress=False, **options)
    np.testing.assert_allclose(run.atoms.positions, alone.atoms.positions, atol=1e-4)
    assert run.timings.teacher_calls == 3
    moved = [
        under_ase(PotentialCalculator(load_potential(spec, run.atoms.numbers)))
        for spec in (f"socket:{name}", "so3lr")
    ]
    np.testing.assert_allclose(*moved, atol=1e-4)


def under_ase(calculator, atoms=WATER64, student="water"):
    """Positions after two outer steps of ASE's dynamics with this teacher."""
    atoms = read(atoms) if isinstance(atoms, Path) else atoms.copy()
    atoms.calc = calculator
    options = {"temperature_K": 300, "friction": 1 / (1000 * FS), "student": student}
    rng = np.random.default_rng(1)
    RespaBAOAB(atoms, 4 * FS, inner_steps=4, rng=rng, **options).run(2)
    return atoms.positions


def test_ase_asks_a_program_by_its_own_socket(tmp_path, connect):
    """`SocketIOCalculator` is a teacher like any calculator."""
    name, atoms = name_of(tmp_path), toy_water(1)
    write_start(tmp_path / "start.extxyz", atoms, atoms.get_masses())
    shutil.copy(Path(__file__).with_name("toy_calculators.py"), tmp_path)
    with SocketIOCalculator(unixsocket=name) as calculator:
        words = ("--address", name, "--structure", "start.extxyz")
        connect(MTS, "serve", "ase:toy_calculators:ToyWater", *words)
        moved = under_ase(calculator, atoms, ToyWater(scale=1.02))
    expected = under_ase(ToyWater(), atoms, ToyWater(scale=1.02))
    np.testing.assert_allclose(moved, expected, atol=1e-9)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 100, "host:1"])
def test_names_that_no_socket_can_have(name):
    with pytest.raises(UserError, match="give a name of letters"):
        load_potential(f"socket:{name}", [1])


def test_a_socket_of_another_program_is_left_and_a_dead_one_is_taken(tmp_path):
    name = name_of(tmp_path)
    code = (
        "import sys, time; from mts_driver.potentials import load_potential; "
        f"p = load_potential('socket:{name}', [1]); print('here', flush=True); time.sleep(1e4)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"here\n"
        with pytest.raises(UserError, match=r"cannot listen at /tmp/ipi_.*choose another name"):
            load_potential(f"socket:{name}", [1])
    finally:
        other.kill()
        other.wait()
    assert Path(f"/tmp/ipi_{name}").exists()
    load_potential(f"socket:{name}", [1])


def test_under_ipi_it_connects_to_ipi(tmp_path):
    start = tmp_path / "start.extxyz"
    write_start(start, toy_water(1), toy_water(1).get_masses())
    done = here("prepare", start, "-o", tmp_path / "run", "--teacher", "socket:x")
    assert done.returncode == 2 and "connects to i-PI itself" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_distillation_of_several_systems_is_refused_before_anybody_waits(tmp_path):
    for name in "ab":
        write_start(tmp_path / f"{name}.extxyz", toy_water(1), toy_water(1).get_masses())
    with pytest.raises(UserError, match="2 systems: a program behind a socket knows one"):
        mts_driver.distill(
            [tmp_path / "a.extxyz", tmp_path / "b.extxyz"],
            tmp_path / "s.safetensors",
            teacher="socket:nobody",
        )


@pytest.mark.slow
def test_a_student_is_distilled_from_a_program(tmp_path, connect):
    """Nothing but a socket between `mts distill` and SO3LR."""
    pytest.importorskip("so3krates_torch")
    from ase.build import molecule
    from ase.io import write

    name = name_of(tmp_path)
    write(tmp_path / "methanol.xyz", molecule("CH3OH"))
    connect(MTS, "serve", "so3lr", "--address", name, "--structure", "methanol.xyz")
    words = ("--hidden", 16, "--updates", 200, "--frames", 100)
    student = tmp_path / "s.safetensors"
    done = mts(
        *("distill", tmp_path / "methanol.xyz", "-o", student, "--teacher", f"socket:{name}"),
        *words,
        timeout=3 * LONG_S,
    )
    assert done.returncode == 0, done.stderr
    wait_for(student.exists)
    atoms = read(tmp_path / "methanol.xyz")
    forces = [
        load_potential(spec, atoms.numbers)(_x(atoms), cell_of(atoms)).forces.numpy()
        for spec in (f"student:{student}", "so3lr")
    ]
    assert np.abs(forces[0] - forces[1]).max() < 0.5


def _x(atoms):
    import torch

    return torch.tensor(atoms.positions)
