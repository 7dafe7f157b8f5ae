"""Frames of any file: ASE's formats, those of i-PI with their units, and labels of isotopes."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import UnknownFileTypeError, filetype, open_with_compression

from mts_driver.errors import UserError
from mts_driver.structures.reading.counts import check_counts
from mts_driver.structures.reading.ipi_labels import element_of
from mts_driver.units import AMU_PER_ELECTRON_MASS

ISOTOPES = {"D": ("H", 2.01410177812), "T": ("H", 3.0160492779)}
"""Labels that i-PI and others write for isotopes: element and mass, Da."""

OTHER_INPUTS = ("gaussian-in", "nwchem-in", "gamess-us", "orca-input", "turbomole")
"""Inputs of other programs, whose charge ASE leaves out."""

MOST_BYTES = 200_000_000
"""Of larger files only the last frame is read, and frames are not counted."""

LONGEST_CIF_A = 400.0
"""ASE takes atoms within a thousandth of the cell for one; within 0.4 Å they are refused anyway."""

_IPI_COMMENT = re.compile(r"CELL[(\[{](abcABC|H|GENH)[)\]}]|\b(positions|cell)\{\w+\}")
_IPI_VECTORS = re.compile(r"\b(velocities|momenta|forces|f_centroid|v_centroid|p_centroid)\{\w+\}")


def split_index(text: str) -> tuple[Path, int | None]:
    """Take ``FILE@3`` apart, ASE's way to name one frame of a file; None where there is none.

    A file whose own name ends like that wins.
    """
    name, at, index = text.rpartition("@")
    if at and not Path(text).exists() and re.fullmatch(r"[-+]?\d+", index):
        return Path(name), int(index)
    return Path(text), None


def read_frames(path: Path, index: int | None) -> tuple[list[Atoms], list[str]]:
    """Read all frames of a file, or one, with what had to be understood for it.

    Parameters
    ----------
    index : int or None
        One frame; None for all (of a file beyond 200 MB the last).

    Returns
    -------
    list of ase.Atoms, list of str
        Frames as the file has them, in Å and Da, and sentences for the user.

    Raises
    ------
    UserError
        If the file is missing, or cannot be read, or belongs to another program's input.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"structure file {str(path)!r} {kind}: check the path.")
    notes: list[str] = []
    wanted: int | str = ":"
    if path.stat().st_size > MOST_BYTES:
        wanted = -1 if index is None else index
        if index is None:
            notes.append(f"larger than {MOST_BYTES / 1e6:.0f} MB: only its last frame is read")
    try:
        frames = _read(path, wanted, notes)
        if wanted == ":" and index is not None:
            frames = [frames[index]]
    except UserError:
        raise
    except UnknownFileTypeError as error:
        raise UserError(
            f"structure file {str(path)!r} is of no format that ASE knows: use extxyz, or another "
            "of its formats with the suffix that it goes by."
        ) from error
    except IndexError as error:
        raise UserError(
            f"structure file {str(path)!r} has no frame {index}: count from 0, or from -1 for the "
            "last."
            if index is not None
            else f"structure file {str(path)!r} cannot be read ({error}): is it complete?"
        ) from error
    except Exception as error:  # each of ASE's readers raises errors of its own
        raise UserError(
            f"structure file {str(path)!r} cannot be read ({type(error).__name__}: {error}): use "
            "a format that ASE knows, such as extxyz, and check its element symbols."
        ) from error
    if not frames or not all(len(frame) for frame in frames):
        raise UserError(f"structure file {str(path)!r} holds no atoms: give one with atoms.")
    return frames, notes


def _read(path: Path, wanted: int | str, notes: list[str]) -> list[Atoms]:
    most = None if wanted == ":" else 1
    if by_ipi := _ipi_format(path):
        if by_ipi == "xyz":
            check_counts(path, most_frames=most)
        notes.append("read with the cell and units of i-PI's comment")
        return list(_ipi_frames(path))
    form = filetype(str(path))
    if form in OTHER_INPUTS:
        raise UserError(
            f"structure file {str(path)!r} is an input of another program ({form}), whose charge "
            "and spin would be lost: convert it to extxyz, with charge=... in its second line."
        )
    if form in ("xyz", "extxyz"):
        check_counts(path, most_frames=most)
        with open_with_compression(str(path), "rb") as file:
            text, isotopes = _without_isotopes(file.read().decode())
        if isotopes:
            frames = _listed(read(io.StringIO(text), index=":", format="extxyz"))
            for atoms, masses in zip(frames, isotopes, strict=True):
                _give_masses(atoms, masses)
            labels = sorted({label for masses in isotopes for label in masses.values()})
            notes.append(f"atoms labelled {' and '.join(labels)} are hydrogens of that mass")
            return frames
    found = read(path, index=wanted)
    frames = _listed(found)
    for atoms in frames:
        _refuse_disorder(path, form, atoms)
        _add_declared_charges(path, form, atoms)
    return frames


def _refuse_disorder(path: Path, form: str, atoms: Atoms) -> None:
    """Refuse atoms that are there in part, and crystals in which ASE's reader merges neighbours."""
    shares = [*np.atleast_1d(atoms.arrays.get("occupancy", []))]
    if isinstance(sites := atoms.info.get("occupancy"), dict):
        shares += [share for site in sites.values() for share in site.values()]
    if partial := [float(share) for share in shares if 0.0 < share < 1.0]:
        raise UserError(
            f"structure file {str(path)!r} has atoms that are there in part (an occupancy of "
            f"{partial[0]:g}): choose one of the alternatives and leave the others out."
        )
    if form == "cif" and (longest := max(atoms.cell.lengths())) > LONGEST_CIF_A:
        raise UserError(
            f"structure file {str(path)!r} has a cell of {longest:.0f} Å, in which ASE's reader of "
            f"CIF takes atoms within {1e-3 * longest:.1f} Å for one: convert it to extxyz by "
            "another program."
        )


def _listed(found: Any) -> list[Atoms]:
    return [a for a in (found if isinstance(found, list) else [found]) if isinstance(a, Atoms)]


def _ipi_format(path: Path) -> str | None:
    """Return how i-PI wrote the file (``xyz`` or ``pdb``), or None if it did not."""
    with path.open("rb") as file:
        head = [file.readline(4096).decode("utf-8", "replace") for _ in range(2)]
    if re.fullmatch(r"\s*\d+\s*", head[0]):
        comment = head[1]
        if "Properties=" in comment or not _IPI_COMMENT.search(comment):
            return None
        form = "xyz"
    elif head[0].startswith("TITLE") and _IPI_COMMENT.search(head[0]):
        comment, form = head[0], "pdb"
    else:
        return None
    if vectors := _IPI_VECTORS.search(comment):
        raise UserError(
            f"structure file {str(path)!r} holds {vectors.group()} of i-PI, not positions: give "
            "the file of positions."
        )
    return form


def _ipi_frames(path: Path) -> Iterator[Atoms]:
    """Read with i-PI's own reader, whose default units are bohr for xyz, Å for pdb."""
    from ipi.utils.io import read_file
    from ipi.utils.units import unit_to_user

    form = str(_ipi_format(path))
    with path.open() as file:
        while True:
            try:
                # a plain comment names no quantity, which i-PI would leave without a dimension
                frame = read_file(form, file, dimension="length")
            except EOFError:
                return
            names = [str(name) for name in frame["atoms"].names]
            symbols = [element_of(name) or name for name in names]
            # with i-PI's own bohr, so that angstroms are what they were
            q, h = (np.array(a) for a in (frame["atoms"].q, frame["cell"].h))
            positions = unit_to_user("length", "angstrom", q.reshape(-1, 3))
            cell = unit_to_user("length", "angstrom", h.T)
            periodic = not (np.diag(cell) < 0).all()  # i-PI's mark for none is -1
            if periodic and not (np.diag(cell) > 0).all():
                raise UserError(
                    f"structure file {str(path)!r} has the cell {cell.tolist()} Å in i-PI's "
                    "comment, which i-PI needs along the axes: a along x, b in the plane of x and "
                    "y, and all three lengths above 0."
                )
            atoms = Atoms(symbols, positions, cell=cell if periodic else None, pbc=periodic)
            given = np.array(frame["atoms"].m) * AMU_PER_ELECTRON_MASS
            labelled = {k: n for k, n in enumerate(names) if n != symbols[k]}
            _give_masses(atoms, labelled, given)
            yield atoms


def _give_masses(atoms: Atoms, labelled: dict[int, str], given: np.ndarray | None = None) -> None:
    """Set the masses of labelled isotopes, unless the file has a column of masses."""
    if not labelled or atoms.has("masses") or atoms.has("mass"):
        return
    masses = atoms.get_masses()
    for k, label in labelled.items():
        masses[k] = ISOTOPES[label][1] if given is None else given[k]
    atoms.set_masses(masses)


def _without_isotopes(text: str) -> tuple[str, list[dict[int, str]]]:
    """Replace labels D and T by H; an empty list if there is none, or the text is no xyz."""
    if not re.search(r"(?m)^\s*[DT]\s|\s[DT]\s", text):
        return text, []
    lines = text.split("\n")
    found: list[dict[int, str]] = []
    start = 0
    while start < len(lines) and lines[start].strip():
        try:
            count = int(lines[start])
            column = _species_column(lines[start + 1])
        except (ValueError, IndexError):
            return text, []
        labelled: dict[int, str] = {}
        for k, row in enumerate(range(start + 2, min(start + 2 + count, len(lines)))):
            words = lines[row].split()
            if column < len(words) and words[column] in ISOTOPES:
                labelled[k] = words[column]
                words[column] = ISOTOPES[words[column]][0]
                lines[row] = " ".join(words)
        found.append(labelled)
        start += 2 + count
    return "\n".join(lines) + "\n", found if any(found) else []


def _species_column(comment: str) -> int:
    """Return the column of the element in the rows of an (ext)xyz frame."""
    properties = re.search(r'Properties="?([^\s"]+)', comment)
    column = 0
    words = properties.group(1).split(":") if properties else []
    for name, _, width in zip(words[::3], words[1::3], words[2::3], strict=False):
        if name == "species":
            return column
        column += int(width)
    return 0


def _add_declared_charges(path: Path, form: str, atoms: Atoms) -> None:
    """Keep charges that a format has a place for and ASE's reader passes over."""
    charges = np.zeros(len(atoms))
    if form in ("sdf", "mol"):
        for line in path.read_text(errors="replace").split("$$$$")[0].splitlines():
            words = line.split()
            if words[:2] == ["M", "CHG"]:
                for atom, charge in zip(words[3::2], words[4::2], strict=False):
                    charges[int(atom) - 1] += int(charge)
    elif form == "proteindatabank":
        rows = [
            line
            for line in path.read_text(errors="replace").splitlines()
            if line.startswith(("ATOM", "HETATM"))
        ]
        if len(rows) == len(atoms):
            for k, line in enumerate(rows):
                if sign := re.fullmatch(r"(\d)([+-])", line[78:80].strip()):
                    charges[k] = int(sign.group(1)) * (1 if sign.group(2) == "+" else -1)
    if charges.any():
        atoms.set_array("formal_charges", charges)
