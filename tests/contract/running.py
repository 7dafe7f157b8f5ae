"""Small runs of ``mts run`` with calculators that cost nothing, for the contract tests."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from unittest import mock

import numpy as np
from ase import Atoms
from ase.build import molecule

from mts_driver.cli import main
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.run_folder import write_run_folder
from mts_driver.structures.held_bonds import distances, held_pairs
from mts_driver.structures.masses import repartitioned_masses

HERE = Path(__file__).parent
MTS = Path(sys.executable).with_name("mts")
TEACHER = "ase:toy_calculators:ToyWater"
STUDENT = "ase:toy_calculators:ToyWater?scale=1.02"
LONG_S = 600.0
"""A net for what hangs, not a bound: beside other work seconds become minutes."""


def toy_water(n: int = 2) -> Atoms:
    """n³ water molecules on a grid, turned at random."""
    rng = np.random.default_rng(1)
    atoms = Atoms()
    for site in np.ndindex(n, n, n):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate(3.1 * np.array(site))
        atoms += water
    atoms.cell, atoms.pbc = [3.1 * n] * 3, True
    return atoms


def make_run(
    folder: Path, *, teacher=TEACHER, student=STUDENT, n=2, symbols=None, replace=(), **choices
) -> Path:
    """Write an input folder as `mts prepare` does; ``replace`` edits the XML."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {"outer_fs": 4.0, "inner_fs": 1.0, "hydrogen_mass": 4.0, "temperature_K": 300.0}
    options |= {"friction_per_ps": 1.0, "steps": 20, "stride": 1, "seed": 7} | choices
    protocol = RunSettings(teacher=teacher, student=student, **options)

    def edit(xml):
        for old, new in replace:
            assert old in xml, old
            xml = xml.replace(old, new)
        return xml

    atoms = toy_water(n)
    if symbols is not None:
        atoms.symbols = symbols
    masses = repartitioned_masses(atoms, options["hydrogen_mass"])
    shutil.copy(HERE / "toy_calculators.py", folder)
    held = distances(held_pairs(atoms), {"O-H": 0.97}) if protocol.constrained else None
    return write_run_folder(folder, atoms, masses, protocol, edit=edit, held=held)


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "COLUMNS": "400",
        "NO_COLOR": "1",
    }


def mts(*arguments: object, timeout: float = LONG_S) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [MTS, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        check=False,
    )


def here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which has loaded everything; not one that starts others."""
    command, said, errors = ["mts", *map(str, arguments)], io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ, {"COLUMNS": "400", "NO_COLOR": "1"}),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(command, code, said.getvalue(), errors.getvalue())


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command in a session of its own, as a terminal would."""
    return subprocess.Popen(
        [MTS, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
        # a shell that runs these tests in the background has it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def family(folder: Path) -> dict[str, int]:
    """Return the processes whose working directory is the folder: i-PI ("engine") and drivers."""
    found = {}
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit():
            continue
        try:
            if Path(os.readlink(proc / "cwd")) != folder.resolve():
                continue
            command = (proc / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        for key, sign in (
            ("engine", "mts_driver.runs.ipi_process"),
            ("student", "-student"),
            ("", ""),
        ):
            # the student's driver by its address; --student is an option of the teacher's
            if any(word.endswith(sign) and not word.startswith("--") for word in command):
                found[key or "teacher"] = int(proc.name)
                break
    return found


def wait_for(condition, *, timeout: float = LONG_S, what: str = "condition"):
    """Wait until a callable returns something true."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {timeout} s")


class Gate:
    """Lets the calls of a calculator through one by one, so that no run outruns its test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "gate"
        self.folder.mkdir(parents=True)

    @property
    def model(self) -> str:
        return f"{TEACHER}?gate={self.folder}"

    def wait_for(self, condition, *, what: str):
        """Let calls through until a callable returns something true; the next one waits."""

        def done():
            found = condition()
            if not found:
                (self.folder / "go").touch()
            return found

        found = wait_for(done, what=what)
        (self.folder / "go").unlink(missing_ok=True)
        return found

    def open(self) -> None:
        shutil.rmtree(self.folder)


def steps_done(folder: Path) -> int:
    """Rows of the properties file."""
    file = folder / "simulation.out"
    if not file.exists():
        return 0
    return sum(not line.startswith("#") for line in file.read_text().splitlines()) - 1


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def properties(folder: Path) -> np.ndarray:
    return np.loadtxt(folder / "simulation.out")


def sockets_of(input_xml: Path) -> list[Path]:
    addresses = [node.text.strip() for node in ET.parse(input_xml).getroot().iter("address")]
    return [Path(f"/tmp/ipi_{address}") for address in addresses]


def assert_nothing_is_left(input_xml: Path) -> None:
    wait_for(lambda: not family(input_xml.parent), what="end of all processes")
    assert not [path for path in sockets_of(input_xml) if path.exists()]
