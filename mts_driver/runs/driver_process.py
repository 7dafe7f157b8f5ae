"""The command that starts a driver of ``mts run``: ``mts serve`` with what the input says."""

import os
from pathlib import Path

from mts_driver.processes import KEEP_MEMORY, WAIT_BRIEFLY, Child
from mts_driver.runs.input.read import Driver


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
    options = {"device": "cpu", "dtype": "float32", "threads": "0", **driver.options}
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
    return Child(
        driver.name,
        "mts_driver.cli.serve",
        arguments,
        log=folder / f"{driver.name}.log",
        environment={**WAIT_BRIEFLY, **KEEP_MEMORY},
    )


def stats_file(scratch: Path, driver: Driver) -> Path:
    """Where a driver keeps its counters."""
    return scratch / f"{driver.name}.json"


def structure_file(scratch: Path, driver: Driver) -> Path:
    """Where i-PI's process writes the atoms that a driver will be asked about."""
    return scratch / f"{driver.name}.extxyz"
