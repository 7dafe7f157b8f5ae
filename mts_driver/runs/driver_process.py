"""The drivers of ``mts run``: their models checked, and ``mts serve`` with what the input says."""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from mts_driver.errors import UserError
from mts_driver.potentials.load import NAMED, classical_file, require_shareable
from mts_driver.potentials.metatomic.specification import Specification
from mts_driver.processes import KEEP_MEMORY, WAIT_BRIEFLY, Child
from mts_driver.runs.input.read import Driver, RunInput, read_input


def load(path: Path, elsewhere: Mapping[str, str] | None = None) -> RunInput:
    """Read an input and check that its models can be found, before anything starts.

    Parameters
    ----------
    path : Path
        The input or a checkpoint.
    elsewhere : mapping of str to str, optional
        See `mts_driver.runs.input.read.read_input`.

    Raises
    ------
    UserError
        If the input or a model's file is missing or wrong.
    """
    run = read_input(path, elsewhere)
    for driver in run.drivers:
        kind, _, rest = driver.model.partition(":")
        if kind.partition("?")[0] not in ("student", *NAMED):
            raise UserError(
                f"<ffsocket name={driver.name!r}> asks for the model {driver.model!r}: use so3lr, "
                "student:FILE, ase:MODULE:CALLABLE?key=value, metatomic:FILE or classical:FILE, or "
                "leave the model out where a program of your own connects to the socket."
            )
        file = rest if (path.parent / rest).is_file() else rest.partition("?")[0]
        looks_like_file = "/" in file or file.endswith(".safetensors")
        if kind == "student" and looks_like_file and not (path.parent / file).is_file():
            raise UserError(
                f"<ffsocket name={driver.name!r}> asks for the student {file!r}, which is not in "
                f"{path.parent.resolve()}: copy it there, or correct the model."
            )
        if kind == "classical" and not (path.parent / classical_file(driver.model)).is_file():
            raise UserError(
                f"<ffsocket name={driver.name!r}> asks for {driver.model!r}, which is no file seen "
                f"from {path.parent.resolve()}: correct the model."
            )
        if kind == "metatomic":
            Specification.parse(driver.model).require_files(within=path.parent)
        if mpiexec(driver.name, ranks := driver.options.get("ranks", "1")):
            device = driver.options.get("device", "cpu")
            require_shareable(driver.model, device, int(ranks))
    return run


def start_driver(
    driver: Driver, folder: Path, scratch: Path, *, student: Driver | None = None
) -> Child:
    """Start a driver that listens to i-PI, or for it.

    Parameters
    ----------
    driver : Driver
        Of the input.
    folder : Path
        Of the input; the driver runs there, and its log is there.
    scratch : Path
        Holds the atoms, as `structure_file` names them, and takes the counters.
    student : Driver, optional
        Another one that the same process serves.
    """
    options = {"device": "cpu", "dtype": "float32", "threads": "0", "ranks": "1", **driver.options}
    arguments = [driver.model, "--mode", driver.address.mode, "--address", str(driver.address)]
    if driver.address.mode == "zmq":
        arguments = [driver.model, "--zmq", f"ipc://{driver.address}"]
        if student is not None:
            arguments += ["--student", student.model]
            arguments += ["--student-stats", str(stats_file(scratch, student))]
    arguments += ["--structure", str(structure_file(scratch, driver))]
    for key in ("device", "dtype", "threads"):
        arguments += [f"--{key}", options[key]]
    if driver.needs_virial:
        arguments += ["--virial"]
    arguments += ["--stats", str(stats_file(scratch, driver)), "--parent", str(os.getpid())]
    under = mpiexec(driver.name, options["ranks"])
    return Child(
        driver.name,
        "mts_driver.cli.serve",
        [*arguments, "--mpi"] if under else arguments,
        under=under,
        log=folder / f"{driver.name}.log",
        environment={**WAIT_BRIEFLY, **KEEP_MEMORY},
    )


def mpiexec(name: str, ranks: str) -> list[str]:
    """Return the command that starts a driver on so many ranks; nothing for one.

    Raises
    ------
    UserError
        If ``ranks`` is no number, or there is no mpiexec or no mpi4py.
    """
    if not re.fullmatch(r"[1-9]\d*", ranks):
        raise UserError(f"driver {name!r} has ranks: {ranks!r}: write a whole number, from 1 on.")
    if ranks == "1":
        return []
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None or find_spec("mpi4py") is None:
        raise UserError(
            f"driver {name!r} has ranks: {ranks}, which needs mpiexec and mpi4py: pip install "
            "'mts-driver[mpi]', or leave ranks out."
        )
    return [found, "-n", ranks]


def stats_file(scratch: Path, driver: Driver) -> Path:
    """Where a driver keeps its counters."""
    return scratch / f"{driver.name}.json"


def structure_file(scratch: Path, driver: Driver) -> Path:
    """Where i-PI's process writes the atoms that a driver will be asked about."""
    return scratch / f"{driver.name}.extxyz"
