"""An i-PI input, its starts and its drivers, held against the combinations that cannot work."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from mts_driver.errors import UserError
from mts_driver.runs.input.asked import Asked
from mts_driver.runs.input.combinations import check
from mts_driver.structures.masses import PHYSICAL

HEAVIEST_ISOTOPE_DA = 3.1
"""Tritium has 3.02."""


def check_input(
    root: ET.Element,
    system: ET.Element,
    systems: Sequence[ET.Element],
    *,
    weights: Mapping[str, list[float]],
    folder: Path,
    periodic: bool | None,
    student_mode: str,
    both_in_one: bool,
) -> bool:
    """Refuse what cannot work, and return whether the models have to give a virial.

    Parameters
    ----------
    root, system, systems : Element
        The input, the system in question, and all systems.
    weights : mapping of str to list of float
        Of the force fields of the system.
    folder : Path
        Where its starts are.
    periodic : bool or None
        Whether its models see the cell; None if all of them are started by hand.
    student_mode : str
        How i-PI talks to the driver of the student.
    both_in_one : bool
        Whether that is the teacher's driver, too.

    Raises
    ------
    UserError
        See `mts_driver.runs.input.combinations`; or if a number of the input is none.
    """
    starts = [_start(folder / (f.text or "").strip()) for f in system.iterfind("initialize/file")]
    known = [atoms for atoms in starts if atoms is not None]
    if periodic is None and known:
        periodic = bool(known[0].pbc.all())
    try:
        asked = list(
            Asked.of_input(
                root,
                system,
                systems,
                weights=weights,
                periodic=periodic,
                hydrogens=int((known[0].numbers == 1).sum()) if known else None,
                heavy_hydrogens=any(map(_heavy, known)),
                mode=student_mode,
                both_in_one=both_in_one,
            )
        )
    except ValueError as error:
        raise UserError(f"the input has a number that is none ({error}): correct it.") from error
    for one in asked:
        check(one)
    return any(one.constant_pressure for one in asked)


def _start(path: Path) -> Atoms | None:
    """Return the atoms with the masses that i-PI will read; None where this is for i-PI to say."""
    if path.suffix != ".extxyz":
        return None
    try:
        found = read(path, format="extxyz")
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return found if isinstance(found, Atoms) else None


def _heavy(atoms: Atoms) -> bool:
    hydrogen = atoms.numbers == 1
    moved = atoms.has(PHYSICAL) and not np.allclose(
        atoms.get_array(PHYSICAL), atoms.get_masses(), rtol=0, atol=1e-6
    )
    return moved or bool((atoms.get_masses()[hydrogen] > HEAVIEST_ISOTOPE_DA).any())
