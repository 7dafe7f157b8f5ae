"""The one reader of structures, which every command uses, and the start that i-PI reads.

Whatever a file says is kept, converted with a sentence, or refused by name; the table in
docs/pages/structures.md says which.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import write

from mts_driver.errors import UserError
from mts_driver.structures.fixed import held_atoms, read_constraints
from mts_driver.structures.masses import PHYSICAL, read_masses, with_masses
from mts_driver.structures.reading.charge import read_charge
from mts_driver.structures.reading.checks import check_structure
from mts_driver.structures.reading.columns import numbers_of
from mts_driver.structures.reading.formats import read_frames, split_index
from mts_driver.structures.reading.other_names import refuse_other_names
from mts_driver.units import AU_TIME_FS, BOHR_A

Tell = Callable[[str], None]
VELOCITY_COLUMNS = ("velo", "vel", "velocities", "velocity", "v")
"""Columns of other programs, whose units no file says."""


def read_structure(
    path: Path | str, *, tell: Tell = lambda _: None, keep_velocities: bool = False
) -> Atoms:
    """Read the last frame of a file that ASE or i-PI knows, or the one that ``FILE@3`` names.

    Parameters
    ----------
    tell : callable
        Takes a sentence about each thing that was converted, chosen among several, or is not what
        the format is usually taken for.
    keep_velocities : bool
        Whether the caller uses the velocities of the file; else they are left out, and said so.

    Returns
    -------
    ase.Atoms
        Finite, its atoms apart, its cell right-handed. ``get_masses()`` are those of the physics,
        with isotopes; ``info["charge"]`` is the total charge (left out if 0) and
        ``info["multiplicity"]`` the spin (left out for a singlet); the only constraint is a
        ``FixAtoms``. Velocities that are kept are ASE's.

    Raises
    ------
    UserError
        If the file is missing, unreadable or empty, or says something that cannot be honoured.
    """
    path, index = split_index(str(path))
    frames, notes = read_frames(path, index)
    if len(frames) > 1:
        notes.append(f"{len(frames)} frames: the last is taken ({path.name}@0 names the first)")
    atoms = frames[-1]
    for note in (*notes, *_understand(atoms, str(path), keep_velocities)):
        tell(f"{path}: {note}")
    return atoms


def read_systems(path: Path | str, *, tell: Tell = lambda _: None) -> list[Atoms]:
    """Read the systems of a file: its frames if they have names, otherwise the last frame.

    Returns
    -------
    list of ase.Atoms
        As of `read_structure`, each with its name in ``info["system"]``: that of the frame, or of
        the file.

    Raises
    ------
    UserError
        As `read_structure`, or if two frames have the same name.
    """
    path, index = split_index(str(path))
    frames, notes = read_frames(path, index)
    if "system" not in frames[-1].info:
        if len(frames) > 1:
            notes.append(f"{len(frames)} frames: the last is taken ({path.name}@0 names the first)")
        frames = frames[-1:]
        frames[0].info["system"] = path.stem
    for note in notes:
        tell(f"{path}: {note}")
    names = [str(atoms.info.get("system", "")) for atoms in frames]
    for name, atoms in zip(names, frames, strict=True):
        if not name or names.count(name) > 1:
            raise UserError(
                f"structure file {str(path)!r}: {names.count(name)} frames have the name {name!r} "
                "(info 'system'): give every frame a name of its own, or none a name."
            )
        for note in _understand(atoms, f"{path}, {name}" if len(frames) > 1 else str(path)):
            tell(f"{path}, {name}: {note}")
    return frames


def read_atoms(
    atoms: Atoms, *, name: str = "atoms", tell: Tell = lambda _: None, keep_velocities: bool = True
) -> Atoms:
    """Return a copy of atoms in the terms of `read_structure`: what they say is kept or refused.

    Parameters
    ----------
    name : str
        What messages call them.
    tell : callable
        Takes a sentence about each thing that was converted.
    keep_velocities : bool
        Whether the caller uses their velocities.

    Raises
    ------
    UserError
        As `read_structure`.
    """
    if not isinstance(atoms, Atoms):
        raise UserError(f"{name} is {type(atoms).__name__}: give ase.Atoms, or a file of them.")
    if len(atoms) == 0:
        raise UserError(f"{name} is empty: give at least one atom.")
    copy = atoms.copy()
    for note in _understand(copy, name, keep_velocities):
        tell(f"{name}: {note}")
    return copy


def require_file(given: object, *, name: str) -> Path:
    """Return the path of a file where atoms that are already there cannot be taken.

    Raises
    ------
    UserError
        If it is something else than a path.
    """
    if not isinstance(given, str | Path):
        raise UserError(
            f"{name} is {type(given).__name__}: give the path of a file, which names what is "
            "written; ase.io.write makes one of atoms."
        )
    return Path(given)


def _understand(atoms: Atoms, name: str, keep_velocities: bool = False) -> list[str]:
    """Bring a frame to the terms of `read_structure`, in place; sentences for the user."""
    notes: list[str] = []
    refuse_other_names(atoms, name)
    moving = _velocities(atoms, name, notes)
    check_structure(atoms, name)
    notes += read_masses(atoms, name)
    notes += read_charge(atoms, name)
    read_constraints(atoms, name)
    velocities = None
    if moving is not None:
        velocities = with_masses(*moving, atoms.get_masses())
    if velocities is not None and keep_velocities:
        held = held_atoms(atoms)
        if velocities[held].any():
            notes.append("its held atoms do not move: their velocities are taken as 0")
        atoms.set_velocities(velocities)
    elif velocities is not None:
        notes.append(
            "its velocities are drawn anew at the temperature of the run (`mts prepare "
            "--velocities keep --equilibrate-ps 0` keeps them)"
        )
    if atoms.pbc.all() and atoms.cell.handedness < 0:
        atoms.set_cell(atoms.cell.array[[1, 0, 2]], scale_atoms=False)
        notes.append(
            "a left-handed cell: its vectors a and b are exchanged, the crystal is the same"
        )
    if not atoms.pbc.any() and atoms.cell.array.any():
        notes.append("not periodic (pbc='F F F'), though it has a cell: taken as isolated")
    atoms.calc = None
    return notes


def _velocities(atoms: Atoms, name: str, notes: list[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Take ASE's velocities (N, 3) and their masses (N,) out, before masses become others."""
    for column in VELOCITY_COLUMNS:
        if column in atoms.arrays:
            del atoms.arrays[column]
            notes.append(f"its column {column!r} names no units and is not used")
    if not atoms.has("momenta"):
        return None
    momenta = numbers_of(atoms, "momenta", name, each=3)
    masses = numbers_of(atoms, "masses", name) if atoms.has("masses") else atoms.get_masses()
    del atoms.arrays["momenta"]
    with np.errstate(divide="ignore", invalid="ignore"):  # masses are checked later
        return (momenta / masses[:, None], masses) if momenta.any() else None


def fingerprint(atoms: Atoms) -> str:
    """Return a digest of all that a run on these atoms depends on, to know a state that fits."""
    arrays = (
        *(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, atoms.get_masses()),
        held_atoms(atoms),
        np.array([atoms.info.get("charge", 0), atoms.info.get("multiplicity", 1)]),
    )
    return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def boxed(atoms: Atoms, *, vacuum: float = 20.0) -> tuple[Atoms, bool]:
    """Return the atoms with a cell, since i-PI needs one, and whether it had to be made.

    Parameters
    ----------
    vacuum : float
        Å between an isolated molecule and the sides of its new box, which is no period: ``pbc``
        stays false.
    """
    atoms = atoms.copy()
    if atoms.pbc.all():
        return atoms, False
    atoms.cell = None  # one that was there may be of any shape
    atoms.center(vacuum=vacuum)
    return atoms, True


def along_axes(atoms: Atoms) -> tuple[Atoms, bool]:
    """Return the atoms turned so that a lies along x and b in the plane of x and y, as i-PI has it.

    The second value tells whether anything had to be turned; positions and velocities turn alike.
    """
    cell, rotation = atoms.cell.standard_form()
    if np.allclose(cell, atoms.cell.array, rtol=0, atol=1e-9):
        return atoms, False
    turned = atoms.copy()
    turned.set_cell(cell, scale_atoms=False)
    turned.positions = atoms.positions @ rotation.T
    if atoms.has("momenta"):
        turned.set_array("momenta", atoms.arrays["momenta"] @ rotation.T)
    return turned, True


def write_velocities(path: Path, atoms: Atoms, masses_Da: np.ndarray) -> None:
    """Write what i-PI's ``<velocities mode='xyz'>`` reads, in atomic units.

    Parameters
    ----------
    masses_Da : ndarray, shape (N,)
        Those of the run, with which every atom has the kinetic energy that it has here.
    """
    velocities = with_masses(atoms.get_velocities(), atoms.get_masses(), masses_Da)
    velocities *= units.fs / BOHR_A * AU_TIME_FS
    rows = [
        f"{symbol} {x:.16e} {y:.16e} {z:.16e}"
        for symbol, (x, y, z) in zip(atoms.symbols, velocities, strict=True)
    ]
    path.write_text("\n".join([str(len(atoms)), "# velocities{atomic_unit}", *rows, ""]))


def write_start(path: Path, atoms: Atoms, masses_Da: np.ndarray) -> None:
    """Write what i-PI's ``<file mode='ase'>`` reads, and `read_structure` reads back equal.

    Parameters
    ----------
    masses_Da : ndarray, shape (N,)
        Those of the run; the physical ones are kept beside where they differ.
    """
    # as many digits as the format has: what is checked here is what will be read
    start = Atoms(atoms.numbers, np.round(atoms.positions, 8), cell=atoms.cell, pbc=atoms.pbc)
    start.info = {k: atoms.info[k] for k in ("charge", "multiplicity") if k in atoms.info}
    start.set_array("masses", np.round(np.asarray(masses_Da, float), 8))
    columns = ["symbols", "positions", "masses"]
    if np.abs(masses_Da - atoms.get_masses()).max() > 0:
        start.set_array(PHYSICAL, np.round(atoms.get_masses(), 8))
        columns.append(PHYSICAL)
    if len(held_atoms(atoms)):
        start.set_constraint(atoms.constraints)
        columns.append("move_mask")
    check_structure(start, str(path))
    write(path, start, format="extxyz", columns=columns)
