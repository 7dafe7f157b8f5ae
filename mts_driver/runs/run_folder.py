"""The folder of a run: everything that `mts run` and i-PI need to start it."""

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from ase import Atoms

from integrators.constraints import Distances
from integrators.distances_file import written
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.input.write import (
    CONSTRAINTS_FILE,
    VELOCITIES_FILE,
    ZMQ_FILE,
    ZMQ_TEXT,
    input_xml,
)
from mts_driver.structures.files import write_start, write_velocities

INPUT_FILE, START_FILE = "input.xml", "start.extxyz"


def write_run_folder(
    folder: Path,
    atoms: Atoms,
    masses_Da: np.ndarray,
    protocol: RunSettings,
    *,
    student_file: Path | None = None,
    modules: Iterable[Path] = (),
    held: Distances | None = None,
    edit: Callable[[str], str] = lambda text: text,
) -> Path:
    """Write the input, the start and what else they need.

    Parameters
    ----------
    folder : Path
        Made if it does not exist; nothing is in it before all files are complete.
    atoms : ase.Atoms
        The start; with velocities where the protocol keeps them.
    masses_Da : ndarray, shape (N,)
        Those of the run.
    protocol : RunSettings
        The choices that the input is made of.
    student_file : Path, optional
        A file that the input names without its folder.
    modules : iterable of Path
        Python files that drivers import, which run in the folder.
    held : Distances, optional
        That are held, Å; of a protocol that says so.
    edit : callable
        Returns another text of the input.

    Returns
    -------
    Path
        The input.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_start(scratch / START_FILE, atoms, masses_Da)
        (scratch / INPUT_FILE).write_text(edit(input_xml(protocol, folder)))
        if protocol.keep_velocities:
            write_velocities(scratch / VELOCITIES_FILE, atoms, masses_Da)
        if held is not None:
            (scratch / CONSTRAINTS_FILE).write_text(written(held.pairs, held.lengths))
        if protocol.mode == "zmq" and protocol.student:
            (scratch / ZMQ_FILE).write_text(ZMQ_TEXT)
        for file in (student_file, *modules):
            if file is not None:
                shutil.copy(file, scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for made in sorted(scratch.iterdir()):
            shutil.copyfile(made, folder / made.name)
    return folder / INPUT_FILE
