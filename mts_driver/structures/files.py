"""Structures: read with clear errors, and written as starts of i-PI."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread, read, write

from mts_driver.errors import UserError


def read_structure(path: Path | str) -> Atoms:
    """Read the last frame of a file that ASE knows (xyz, extxyz, pdb, cif, ...).

    Returns
    -------
    ase.Atoms
        At least one atom, all coordinates finite.

    Raises
    ------
    UserError
        If the file is missing, unreadable or empty, or holds a coordinate or cell that is not
        finite, or an unknown element.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"structure file {str(path)!r} does not exist: check the path.")
    try:
        atoms = read(path)
    except Exception as error:  # each of ASE's readers raises errors of its own
        raise UserError(
            f"structure file {str(path)!r} cannot be read ({type(error).__name__}: {error}): use "
            "a format that ASE knows, such as extxyz, and check its element symbols."
        ) from error
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise UserError(f"structure file {str(path)!r} holds no atoms: give one with atoms.")
    check_structure(atoms, str(path))
    return atoms


def read_systems(path: Path | str) -> list[Atoms]:
    """Read the systems of a file: its frames if they have names, otherwise the last frame.

    Returns
    -------
    list of ase.Atoms
        Each with its name in ``info["system"]``: that of the frame, or of the file.

    Raises
    ------
    UserError
        As `read_structure`, or if two frames have the same name.
    """
    path, last = Path(path), read_structure(path)
    if "system" not in last.info:
        last.info["system"] = path.stem
        return [last]
    frames = list(iread(path, index=":"))
    names = [str(atoms.info.get("system", "")) for atoms in frames]
    for name, atoms in zip(names, frames, strict=True):
        if not name or names.count(name) > 1:
            raise UserError(
                f"structure file {str(path)!r}: {names.count(name)} frames have the name {name!r} "
                "(info 'system'): give every frame a name of its own, or none a name."
            )
        check_structure(atoms, f"{path}, {name}")
    return frames


def check_structure(atoms: Atoms, name: str) -> None:
    """Require finite coordinates, known elements and a cell with a volume if it is periodic.

    Raises
    ------
    UserError
        Naming the first atom that is wrong.
    """
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise UserError(
            f"structure {name!r}: the position of atom {bad[0]} is not finite (NaN or infinite; "
            f"{len(bad)} such atoms): repair the file."
        )
    if not np.isfinite(atoms.cell.array).all():
        raise UserError(f"structure {name!r}: the cell is not finite: repair the file.")
    if (atoms.numbers < 1).any():
        first = int(np.flatnonzero(atoms.numbers < 1)[0])
        raise UserError(f"structure {name!r}: atom {first} is of no known element: name it.")
    if atoms.pbc.any() and not (atoms.pbc.all() and abs(atoms.cell.volume) > 0):
        raise UserError(
            f"structure {name!r} is periodic along {atoms.pbc.tolist()} with the cell lengths "
            f"{atoms.cell.lengths().tolist()} Å: give a full three-dimensional cell, or none."
        )


def boxed(atoms: Atoms, *, vacuum: float = 20.0) -> tuple[Atoms, bool]:
    """Return the atoms in a periodic cell, since i-PI needs one, and whether it had to be made.

    Parameters
    ----------
    vacuum : float
        Å between an isolated molecule and the sides of its new box.
    """
    atoms = atoms.copy()
    if atoms.pbc.all():
        return atoms, False
    atoms.center(vacuum=vacuum)
    atoms.pbc = True
    return atoms, True


def write_start(path: Path, atoms: Atoms, masses: np.ndarray) -> None:
    """Write what i-PI's ``<file mode='ase'>`` reads: cell, elements, masses and positions."""
    start = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    start.set_array("masses", np.asarray(masses, float))
    write(path, start, format="extxyz", columns=["symbols", "positions", "masses"])
