"""SPICE-2 HDF5 files: a reader of a few molecules out of many gigabytes.

One group a molecule: ``atomic_numbers`` (n,), ``conformations`` (m, n, 3) in bohr, ``smiles`` with
explicit hydrogens and formal charges, ``subset``, and DFT labels, which are not read: the teacher
labels the frames. https://github.com/openmm/spice-dataset, doi:10.1038/s41597-022-01882-6.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mts_driver.errors import UserError
from mts_driver.units import BOHR_A

BRACKET_CHARGE = re.compile(r"\[[^\]+-]*(\++|-+)(\d*)(?::\d+)?\]")
"""The charge of an atom in a SMILES: [NH3+], [O-:5], [Ca+2], [Ca++]."""


def read_spice(
    path: Path | str,
    *,
    elements: Collection[str],
    subsets: Collection[str] | None = None,
    molecules: int | None = None,
    conformations: int = 1,
    seed: int = 1,
    neutral: bool = True,
    tell: Callable[[str], None] = print,
) -> list[Atoms]:
    """Read conformations of molecules drawn at random from a SPICE-2 file.

    Of molecules that are not drawn no conformation is read, so that a file of 16 GB needs little
    memory; with ``subsets`` the subset of every molecule is read first.

    Parameters
    ----------
    path : path
        The HDF5 file.
    elements : collection of str
        Molecules with any other element are skipped.
    subsets : collection of str, optional
        Only molecules of these, as the file names them ("SPICE Dipeptides Single Points
        Dataset v1.3").
    molecules : int, optional
        How many, at most; all of them if not given.
    conformations : int
        Drawn at random from each molecule; fewer where it has fewer.
    seed : int
        Of all choices.
    neutral : bool
        Skip molecules whose formal charges do not add up to 0.
    tell : callable
        Told in one line how many molecules were read and skipped.

    Returns
    -------
    list of ase.Atoms
        Å, not periodic; info has ``system`` (the group), ``smiles``, ``subset``,
        ``conformation`` (its number in the file) and ``charge`` in e.

    Raises
    ------
    UserError
        If h5py is not installed, the file is missing, not HDF5 or not laid out like SPICE-2, a
        subset is not in it, an argument is out of range, or no molecule is left.
    """
    for name, value in (("molecules", molecules), ("conformations", conformations)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be at least 1.")
    if unknown := sorted(set(elements) - set(atomic_numbers)):
        raise UserError(f"elements: {unknown[0]!r} is no element: use symbols such as 'Cl'.")
    allowed = [atomic_numbers[e] for e in elements]
    rng = np.random.default_rng(seed)
    skipped: Counter[str] = Counter()
    frames: list[Atoms] = []
    read = 0
    with _open(path) as file:
        groups = _groups(file, subsets)
        for k in rng.permutation(len(groups)):
            if read == molecules:
                break
            group = file[groups[k]]
            numbers = _dataset(group, "atomic_numbers")[:]
            if not np.isin(numbers, allowed).all():
                skipped["with other elements"] += 1
                continue
            charge = formal_charge(_text(group, "smiles"))
            if neutral and charge != 0:
                skipped["charged"] += 1
                continue
            frames += _conformations(group, numbers, charge, conformations, rng)
            read += 1
    left_out = "".join(f", {count} {why} skipped" for why, count in sorted(skipped.items()))
    if not frames:
        raise UserError(
            f"SPICE file {str(path)!r}: no molecule is left of {len(groups)}{left_out} (elements="
            f"{sorted(elements)}, neutral={neutral}): allow more elements or other subsets."
        )
    tell(f"{path}: {read} molecules, {len(frames)} conformations read{left_out}")
    return frames


def formal_charge(smiles: str) -> int:
    """Sum of the formal charges of the atoms of a SMILES, in e."""
    return sum(
        (1 if signs[0] == "+" else -1) * int(digits or len(signs))
        for signs, digits in BRACKET_CHARGE.findall(smiles)
    )


def _open(path: Path | str) -> Any:
    """Open the file for reading."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError(
            "reading SPICE files needs h5py: pip install 'mts-driver[general]'."
        ) from error

    if not Path(path).is_file():
        raise UserError(f"SPICE file {str(path)!r} does not exist: check the path.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"SPICE file {str(path)!r} cannot be opened as HDF5 ({error}): it is of another "
            "format or its download was cut short; download it again."
        ) from error


def _groups(file: Any, subsets: Collection[str] | None) -> list[str]:
    """Names of the groups of these subsets, or of all."""
    names = list(file)
    if subsets is None:
        return names
    subset_of = {name: _text(file[name], "subset") for name in names}
    there = set(subset_of.values())
    if unknown := sorted(set(subsets) - there):
        raise UserError(
            f"subset {unknown[0]!r} is not in {file.filename!r}, which has: "
            f"{', '.join(sorted(there))}."
        )
    return [name for name in names if subset_of[name] in set(subsets)]


def _dataset(group: Any, name: str) -> Any:
    # keys() of anything that is no group would fail less clearly
    if not hasattr(group, "keys") or name not in group:
        raise UserError(
            f"SPICE file {group.file.filename!r}: {group.name!r} has no dataset {name!r}: the "
            "file is not laid out like SPICE-2 (one group a molecule)."
        )
    return group[name]


def _text(group: Any, name: str) -> str:
    """Read a dataset of one string: its only element, or a scalar."""
    value = np.asarray(_dataset(group, name)[()]).reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _conformations(
    group: Any, numbers: np.ndarray, charge: int, count: int, rng: np.random.Generator
) -> list[Atoms]:
    """Draw some conformations of one molecule."""
    stored = _dataset(group, "conformations")
    where = f"SPICE file {group.file.filename!r}, molecule {group.name!r}"
    units = stored.attrs.get("units")
    if isinstance(units, bytes):
        units = units.decode()
    if units != "bohr":
        raise UserError(
            f"{where}: conformations have the units {units!r}, and only 'bohr' is known: use the "
            "files of the SPICE releases."
        )
    if stored.ndim != 3 or stored.shape[1:] != (len(numbers), 3):
        raise UserError(
            f"{where}: conformations have the shape {stored.shape}, not (m, {len(numbers)}, 3): "
            "the file is damaged."
        )
    chosen = np.sort(rng.permutation(len(stored))[:count])
    positions = np.asarray(stored[chosen], float) * BOHR_A
    if not np.isfinite(positions).all():
        raise UserError(f"{where}: a conformation is not finite: the file is damaged.")
    info = {
        "system": group.name.lstrip("/"),
        "smiles": _text(group, "smiles"),
        "subset": _text(group, "subset"),
        "charge": charge,
    }
    return [
        Atoms(numbers, x, info=info | {"conformation": int(k)})
        for k, x in zip(chosen, positions, strict=True)
    ]
