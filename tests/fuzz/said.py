"""What a file says about a structure, and how formats say it."""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.data import atomic_masses, atomic_numbers
from ase.geometry import cell_to_cellpar, cellpar_to_cell
from ase.io import write

ISOTOPES = {"D": 2.01410177812, "T": 3.0160492779}


@dataclass(frozen=True)
class Said:
    """What a file says about a structure; None where it says nothing.

    Attributes
    ----------
    labels : list of str
        Elements and isotopes.
    positions_A, cell_A : arrays, shapes (N, 3), (3, 3)
        Rows are lattice vectors; a cell without ``periodic`` is only a box.
    periodic : bool
        Along all three axes.
    charge, multiplicity : int, optional
        Also where they are in the charges or moments of atoms.
    header : dict of str to str
        More of the second line of an extxyz.
    columns : dict of str to array
        More columns of an extxyz, (N,) or (N, 3).
    masses_Da, held, momenta : arrays, optional
        Shapes (N,), (N,) bool and (N, 3) of ASE's units.
    frames : int
        Of which this is the last.
    """

    labels: list[str]
    positions_A: np.ndarray
    cell_A: np.ndarray | None = None
    periodic: bool = False
    charge: int | None = None
    multiplicity: int | None = None
    header: dict[str, str] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    masses_Da: np.ndarray | None = None
    held: np.ndarray | None = None
    momenta: np.ndarray | None = None
    frames: int = 1

    def only(self, *kept: str, **changed: Any) -> "Said":
        """Leave out all but labels, positions, cell and what is named."""
        plain = Said(self.labels, self.positions_A, self.cell_A, self.periodic)
        return replace(plain, **{**{name: getattr(self, name) for name in kept}, **changed})

    @property
    def symbols(self) -> list[str]:
        """Elements of the labels."""
        return ["H" if label in ISOTOPES else label for label in self.labels]

    @property
    def physical_Da(self) -> np.ndarray:
        """Masses as they are meant."""
        if self.masses_Da is not None:
            return self.masses_Da
        natural = [atomic_masses[atomic_numbers[symbol]] for symbol in self.symbols]
        return np.array([ISOTOPES.get(n, m) for n, m in zip(self.labels, natural, strict=True)])


def extxyz(said: Said) -> str:
    """Write all of it."""
    columns: dict[str, np.ndarray] = {"pos": said.positions_A, **said.columns}
    if said.masses_Da is not None:
        columns["masses"] = said.masses_Da
    if said.momenta is not None:
        columns["momenta"] = said.momenta
    if said.held is not None:
        columns["move_mask"] = ~said.held
    kinds = {"f": "R", "b": "L", "i": "I", "U": "S"}
    listed = "".join(
        f":{name}:{kinds[a.dtype.kind]}:{1 if a.ndim == 1 else a.shape[1]}"
        for name, a in columns.items()
    )
    words = [f"Properties=species:S:1{listed}"]
    if said.cell_A is not None:
        words.append(f'Lattice="{" ".join(map(repr, said.cell_A.ravel().tolist()))}"')
    words.append(f'pbc="{" ".join("FT"[said.periodic] * 3)}"')
    words += [f"{key}={value}" for key, value in said.header.items()]
    lines = [str(len(said.labels)), " ".join(words)]
    for k, label in enumerate(said.labels):
        values = [_written(v) for a in columns.values() for v in np.atleast_1d(a[k]).tolist()]
        lines.append(" ".join([label, *values]))
    return "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    return "FT"[value] if isinstance(value, bool) else str(value)


def plain_xyz(said: Said) -> str:
    rows = [f"{n} {x!r} {y!r} {z!r}" for n, (x, y, z) in _rows(said)]
    return "\n".join([str(len(rows)), "a molecule", *rows]) + "\n"


def _rows(said: Said) -> list[tuple[str, list[float]]]:
    return list(zip(said.labels, said.positions_A.tolist(), strict=True))


def ipi_xyz(said: Said, form: str, unit: str) -> str:
    """As i-PI writes it; the cell has a along x and b in the plane of x and y."""
    scale = {"angstrom": 1.0, "atomic_unit": units.Bohr}.get(unit, units.Bohr)
    names = f"cell{{{unit}}} Traj: positions{{{unit}}}" if unit else ""
    cell = "" if said.cell_A is None else f"CELL({form}): {_ipi_cell(said.cell_A, form, scale)}"
    rows = [f"{n} " + " ".join(repr(v / scale) for v in x) for n, x in _rows(said)]
    return "\n".join([str(len(rows)), f"# {cell} Step: 0 Bead: 0 {names}", *rows]) + "\n"


def _ipi_cell(cell_A: np.ndarray, form: str, scale: float) -> str:
    if form == "abcABC":
        lengths = cell_to_cellpar(cell_A)
        return " ".join(map(repr, [*(lengths[:3] / scale).tolist(), *lengths[3:].tolist()]))
    # H has the lattice vectors as columns, GENH as rows
    h = cell_A if form == "GENH" else cell_A.T
    return " ".join(map(repr, (h / scale).ravel().tolist()))


def pdb(said: Said) -> str:
    lines = []
    if said.periodic and said.cell_A is not None:
        lengths = cell_to_cellpar(said.cell_A)
        lines.append("CRYST1" + "".join(f"{v:9.3f}" for v in lengths[:3]))
        lines[0] += "".join(f"{v:7.2f}" for v in lengths[3:]) + " P 1           1"
    for k, (n, x) in enumerate(zip(said.symbols, said.positions_A.tolist(), strict=True)):
        where = "".join(f"{v:8.3f}" for v in x)
        charge = f"{abs(said.charge)}{'+-'[said.charge < 0]}" if said.charge and k == 0 else "  "
        lines.append(
            f"ATOM  {k + 1:5d} {n:>3s}  MOL A   1    {where}  1.00  0.00          {n:>2s}{charge}"
        )
    return "\n".join([*lines, "END", ""])


def poscar(said: Said) -> str:
    """With the atoms sorted by their labels, as VASP wants them."""
    assert said.cell_A is not None
    kinds = sorted(set(said.symbols))
    lines = ["made by a test", "1.0", *(" ".join(map(repr, row)) for row in said.cell_A.tolist())]
    lines += [" ".join(kinds), " ".join(str(said.symbols.count(kind)) for kind in kinds)]
    lines += (["Selective dynamics"] if said.held is not None else []) + ["Cartesian"]
    for k, x in enumerate(said.positions_A.tolist()):
        flags = [] if said.held is None else ["FT"[not said.held[k]]] * 3
        lines.append(" ".join([*map(repr, x), *flags]))
    return "\n".join(lines) + "\n"


def by_label(said: Said) -> Said:
    """The same atoms, sorted."""
    order = np.argsort(said.symbols, kind="stable")
    labels = [said.symbols[k] for k in order]
    held = None if said.held is None else said.held[order]
    return said.only(labels=labels, positions_A=said.positions_A[order], held=held)


def as_atoms(said: Said) -> Atoms:
    """For ASE's own writers."""
    atoms = Atoms(said.symbols, said.positions_A, cell=said.cell_A, pbc=said.periodic)
    if said.masses_Da is not None or set(said.labels) & set(ISOTOPES):
        atoms.set_masses(said.physical_Da)
    if said.momenta is not None:
        atoms.set_momenta(said.momenta)
    if said.held is not None:
        atoms.set_constraint(FixAtoms(np.flatnonzero(said.held)))
    for name in ("initial_charges", "initial_magmoms"):
        if name in said.columns:
            atoms.set_array(name, said.columns[name])
    return atoms


def along_axes(said: Said) -> Said:
    """The same crystal with a along x, b in the plane of x and y, and right-handed."""
    if said.cell_A is None:
        return said
    right = said.cell_A if np.linalg.det(said.cell_A) > 0 else said.cell_A[[1, 0, 2]]
    cell = cellpar_to_cell(cell_to_cellpar(right))
    turned = said.positions_A @ np.linalg.inv(right) @ cell
    return replace(said, cell_A=cell, positions_A=turned)


def by_ase(atoms: Atoms, form: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"a.{form}"
        with mock.patch("ase.db.jsondb.now", lambda: 25.0):  # in the file
            write(file, atoms)
        return file.read_bytes()
