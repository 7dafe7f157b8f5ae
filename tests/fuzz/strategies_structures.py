"""Structures, all that a file can say about them, and files that say it, or something else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from hypothesis import strategies as st
from said import (
    Said,
    along_axes,
    as_atoms,
    by_ase,
    by_label,
    extxyz,
    ipi_xyz,
    pdb,
    plain_xyz,
    poscar,
)
from strategies import damaged

from mts_driver.structures.reading.formats import LONGEST_CIF_A

MOLECULES: dict[str, tuple[list[str], list[list[float]]]] = {
    "water": (["O", "H", "H"], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]),
    "heavy": (["O", "D", "D"], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]),
    "half": (["O", "H", "T"], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]),
    "chloride": (["Cl", "H"], [[0, 0, 0], [0, 0, 1.28]]),
    "argon": (["Ar"], [[0, 0, 0]]),
    "hydroxide": (["O", "H"], [[0, 0, 0], [0, 0, 0.97]]),
    "nitrogen": (["N", "N"], [[0, 0, 0], [0, 0, 1.1]]),
}
CHARGE_KEYS = ("charge", "total_charge", "Charge", "netCharge", "q", "formal_charge")
SPIN_KEYS = {"multiplicity": 0, "Mult": 0, "uhf": 1, "total_spin": 1, "unpaired_electrons": 1}


@st.composite
def geometries(draw: st.DrawFn) -> Said:
    """Molecules apart from each other, alone or in a cell of any orientation and handedness."""
    names = draw(st.lists(st.sampled_from(sorted(MOLECULES)), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels: list[str] = []
    positions = []
    for k, name in enumerate(names):
        labels += MOLECULES[name][0]
        turned = np.array(MOLECULES[name][1]) @ _rotation(rng)
        turned[:, 0] += 4.2 * k
        positions.append(turned + 0.1 * rng.normal(size=3))
    x = np.concatenate(positions)
    kind = draw(st.sampled_from(["none", "box", "sheared", "turned", "left", "unused"]))
    if kind == "none":
        return Said(labels, x + draw(st.sampled_from([0.0, 0.0, -50.0, 3e4])))
    cell = np.diag(rng.uniform(6.0, 9.0, 3))
    cell[0, 0] += 4.2 * (len(names) - 1)
    if kind != "box":
        cell[np.tril_indices(3, -1)] = rng.uniform(-2.5, 2.5, 3)
    if kind == "turned":
        rotation = _rotation(rng)
        cell, x = cell @ rotation, x @ rotation
    if kind == "left":
        cell = cell[[[1, 0, 2], [2, 1, 0], [0, 2, 1]][draw(st.integers(0, 2))]]
    elif kind != "unused" and draw(st.booleans()):
        cell = cell[[1, 2, 0]]
    if kind == "box" and draw(st.integers(0, 3)) == 0:
        cell = cell * np.array([[1.0], [300.0], [300.0]])
    shift = rng.integers(-2, 3, size=3) @ cell if kind != "unused" else 0.0
    return Said(labels, x + shift, cell, periodic=kind != "unused")


def _rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


@st.composite
def sayings(draw: st.DrawFn) -> Said:
    """Structures with any of what an extxyz can say and the reader keeps."""
    said = draw(geometries())
    natoms, natural = len(said.labels), said.physical_Da
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        said = draw(_with_charge(said))
    said = draw(_with_spin(said))
    if draw(st.integers(0, 2)) == 0:
        masses = natural + 0.5 * rng.integers(0, 2, natoms) * np.sign(natural)
        said = replace(said, masses_Da=np.round(masses, 8))
    if natoms > 1 and draw(st.integers(0, 2)) == 0:
        held = rng.random(natoms) < 0.5
        held[0] = False
        said = replace(said, held=held)
    if draw(st.integers(0, 2)) == 0:
        said = replace(said, momenta=np.round(rng.normal(size=(natoms, 3)), 8))
    return replace(said, frames=draw(st.sampled_from([1, 1, 1, 2, 3])))


@st.composite
def _with_charge(draw: st.DrawFn, said: Said) -> Said:
    """A total charge in a header, in two of one mind, or in charges of atoms."""
    charge = draw(st.integers(-2, 2))
    form = draw(st.sampled_from(["{}", "{}.0", "{:+d}", '"{}"']))
    where = draw(st.sampled_from(["header", "header", "two", "atoms", "both"]))
    header, columns = dict(said.header), dict(said.columns)
    if where != "atoms":
        header[draw(st.sampled_from(CHARGE_KEYS))] = form.format(charge)
    if where == "two":
        header["system_charge"] = str(charge)
    if where in ("atoms", "both"):
        parts = np.zeros(len(said.labels))
        parts[-1] = charge
        parts += 0.25
        parts[0] -= 0.25 * len(parts)
        columns["initial_charges"] = parts
    return replace(said, charge=charge, header=header, columns=columns)


@st.composite
def _with_spin(draw: st.DrawFn, said: Said) -> Said:
    """A multiplicity that the electrons can have, or nothing about it."""
    electrons = sum(atomic_numbers[s] for s in said.symbols) - (said.charge or 0)
    how = draw(st.sampled_from(["nothing", "header", "header", "moments"]))
    if how == "nothing" or electrons < 1:
        return said
    unpaired = electrons % 2 + 2 * draw(st.integers(0, 1)) * (electrons > 3)
    if how == "moments":
        moments = np.zeros(len(said.labels))
        moments[0] = unpaired
        columns = {**said.columns, "initial_magmoms": moments}
        return replace(said, multiplicity=unpaired + 1, columns=columns) if unpaired else said
    key = draw(st.sampled_from(sorted(SPIN_KEYS)))
    header = {**said.header, key: str(unpaired + 1 - SPIN_KEYS[key])}
    return replace(said, multiplicity=unpaired + 1, header=header)


Written = tuple[str, bytes, Said]
"""Name of a file, what is in it, and what that says."""


@st.composite
def files(draw: st.DrawFn) -> Written:
    """Files that are as they should be, of any format, and what they say."""
    said = draw(sayings())
    form = draw(st.sampled_from(["extxyz"] * 4 + sorted(OTHERS)))
    if form != "extxyz":
        return draw(OTHERS[form](said))
    other = replace(said, positions_A=said.positions_A + 1.0, header={}, columns={})
    return "a.xyz", (extxyz(other) * (said.frames - 1) + extxyz(said)).encode(), said


def _xyz(said: Said) -> st.SearchStrategy[Written]:
    one = said.only(cell_A=None, periodic=False)
    return st.just(("a.xyz", plain_xyz(one).encode(), one))


@st.composite
def _ipi(draw: st.DrawFn, said: Said) -> Written:
    one = along_axes(said.only()) if said.periodic else said.only(cell_A=None)
    form = draw(st.sampled_from(["abcABC", "H", "GENH"]))
    unit = draw(st.sampled_from(["angstrom", "atomic_unit", ""]))
    if one.cell_A is None:
        unit = unit or "angstrom"  # nothing else would tell it from others' xyz
    return "a.xyz", ipi_xyz(one, form, unit).encode(), one


@st.composite
def _pdb(draw: st.DrawFn, said: Said) -> Written:
    one = said.only(labels=said.symbols)
    one = along_axes(one) if one.periodic else replace(one, cell_A=None)
    if np.abs(one.positions_A).max() > 900.0:  # the columns are too narrow
        one = replace(one, positions_A=one.positions_A - one.positions_A[0])
    one = replace(one, charge=draw(st.sampled_from([None, None, -1, 1, 2])))
    return "a.pdb", pdb(one).encode(), one


def _vasp(said: Said) -> st.SearchStrategy[Written]:
    if not said.periodic:
        return _xyz(said)
    one = by_label(said)
    return st.just(("a.vasp", poscar(one).encode(), one))


def _cif(said: Said) -> st.SearchStrategy[Written]:
    if not said.periodic or np.linalg.norm(said.cell_A, axis=1).max() > LONGEST_CIF_A:
        return _xyz(said)
    one = along_axes(said.only(labels=said.symbols))
    return st.just(("a.cif", by_ase(as_atoms(one), "cif"), one))


@st.composite
def _ase(draw: st.DrawFn, said: Said) -> Written:
    """ASE's own formats, which have no header: charge and spin are those of the atoms."""
    if said.charge and "initial_charges" not in said.columns:  # its spin is that of its charge
        said = replace(said, columns={})
    kept = {"initial_charges": "charge", "initial_magmoms": "multiplicity"}
    fields = [name for column, name in kept.items() if column in said.columns]
    fields += ["columns", "held", "momenta"]
    one = said.only(*fields, labels=said.symbols, masses_Da=said.physical_Da)
    form = draw(st.sampled_from(["json", "traj"]))
    return f"a.{form}", by_ase(as_atoms(one), form), one


OTHERS = {"xyz": _xyz, "ipi": _ipi, "pdb": _pdb, "vasp": _vasp, "cif": _cif, "ase": _ase}


def _header(**words: str) -> Callable[[Said], Said]:
    return lambda said: replace(said, header={**said.header, **words})


def _column(name: str, value: float) -> Callable[[Said], Said]:
    """A column of ones, but for the last atom."""

    def change(said: Said) -> Said:
        values = np.ones(len(said.labels))
        values[-1] = value
        columns = {**said.columns, name: values}
        return replace(said, columns=columns, masses_Da=None, momenta=None)

    return change


def _words(name: str) -> Callable[[Said], Said]:
    def change(said: Said) -> Said:
        words = np.array(["a"] * len(said.labels))
        columns = {**said.columns, name: words}
        return replace(said, columns=columns, masses_Da=None, momenta=None)

    return change


def _position(value: Any) -> Callable[[Said], Said]:
    def change(said: Said) -> Said:
        x = said.positions_A.copy()
        x[-1] = value
        return replace(said, positions_A=x)

    return change


def _label(label: str) -> Callable[[Said], Said]:
    return lambda said: replace(said, labels=[label, *said.labels[1:]])


def _cell(cell: Any) -> Callable[[Said], Said]:
    return lambda said: replace(said, cell_A=np.array(cell, float), periodic=True)


def _twice(said: Said) -> Said:
    again = said.positions_A[:1] + np.array([0.0, 0.1, 0.2])
    positions = np.concatenate([said.positions_A, again])
    return said.only(labels=[*said.labels, said.labels[0]], positions_A=positions)


def _image_twice(said: Said) -> Said:
    """Two atoms that meet in a corner of the cell, several cells apart."""
    cell = np.array([[7.0, 0.0, 0.0], [2.0, 8.0, 0.0], [-3.0, 1.0, 9.0]])
    positions = np.array([[0.1, 0.1, 0.1], np.array([2.0, -3.0, 4.0]) @ cell - 0.1])
    return said.only(labels=["Ar", "Ar"], positions_A=positions, cell_A=cell, periodic=True)


def _held(said: Said) -> Said:
    return replace(said, held=np.ones(len(said.labels), bool))


def _held_along_z(said: Said) -> Said:
    free = np.array([[True, True, False]] * len(said.labels))
    return replace(said, held=None, columns={**said.columns, "move_mask": free})


def _momenta(said: Said) -> Said:
    return replace(said, momenta=np.full((len(said.labels), 3), np.nan), masses_Da=None)


WRONG: dict[str, Callable[[Said], Said]] = {
    "charge 0.5": _header(charge="0.5"),
    "charge in words": _header(charge="minus_one"),
    "charge nan": _header(charge="nan"),
    "charge true": _header(charge="T"),
    "charge of many": _header(charge='"1 2"'),
    "charge empty": _header(charge='""'),
    "charge of two minds": _header(charge="1", net_charge="-1"),
    "charges of atoms": _column("initial_charges", 0.4),
    "charges of atoms nan": _column("initial_charges", np.nan),
    "spin": _header(spin="1"),
    "spin 0": _header(multiplicity="0"),
    "spin beyond": _header(multiplicity="9999"),
    "spin half": _header(multiplicity="1.5"),
    "spin of two minds": _header(multiplicity="1", mult="2"),
    "masses nan": _column("masses", np.nan),
    "masses zero": _column("masses", 0.0),
    "masses negative": _column("mass", -1.0),
    "masses infinite": _column("masses", np.inf),
    "position nan": _position(np.nan),
    "position infinite": _position([0.0, 0.0, -np.inf]),
    "position far": _position([0.0, 2e6, 0.0]),
    "atom twice": _twice,
    "atom twice in images": _image_twice,
    "element": _label("Qq"),
    "no element": _label("X"),
    "cell tiny": _cell(np.eye(3)),
    "cell flat": _cell([[9, 0, 0], [18, 0, 0], [0, 0, 9]]),
    "cell without c": _cell([[9, 0, 0], [0, 9, 0], [0, 0, 0]]),
    "cell zero": _cell(np.zeros((3, 3))),
    "cell nan": _cell([[9, 0, 0], [0, np.nan, 0], [0, 0, 9]]),
    "cell infinite": _cell([[9, 0, 0], [0, np.inf, 0], [0, 0, 9]]),
    "cell sheared": _cell([[9, 0, 0], [1e5, 9, 0], [0, 0, 9]]),
    "held all": _held,
    "held along z": _held_along_z,
    "momenta nan": _momenta,
    "momenta of one axis": _column("momenta", 1.0),
    "charge beyond": _header(charge="9999"),
    "charges of atoms in words": _words("initial_magmoms"),
    "spin nan": _column("initial_magmoms", np.nan),
    "masses in words": _words("masses"),
    "masses otherwise": _column("isotope", 2.0),
    "held otherwise": _column("fixed", 1.0),
    "cell otherwise": lambda said: replace(
        said.only(cell_A=None, periodic=False), header={"cell": '"9 0 0 0 9 0 0 0 9"'}
    ),
}
"""What must be refused, whatever else a file says."""


@st.composite
def wrong_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """An extxyz that is right but for one thing, and the name of that."""
    said = replace(draw(sayings()), frames=1)
    name = draw(st.sampled_from(sorted(WRONG)))
    if name.startswith(("charge", "spin")):
        said = replace(said, header={}, columns={}, charge=None, multiplicity=None)
    return name, extxyz(WRONG[name](said)).encode()


SUFFIXES = (
    *("xyz", "extxyz", "pdb", "vasp", "cif", "json", "traj", "sdf", "mol", "gro", "in", "db"),
    *("res", "cell", "lmp", "", "txt", "xsf", "gen", "cube", "castep", "con", "POSCAR", "x@3"),
)
ONE, IPI = b"1\n\nO 0 0 0\n", b"positions{angstrom}\nO 0 0 0\n"
GARBAGE = (
    *(b"", b"\n", b"\0", b"0\n\n", b"-1\n\n", b"1\n", b"1\n\n", b"1\n\nO 0 0\n", b"2\n\nO 0 0 0\n"),
    *(b"999999999999\n\nO 0 0 0\n", b"1e3\n\nO 0 0 0\n", ONE + b"2\n\nO 0 0 0\n", ONE + b"x\n"),
    *(b"99999999\n# CELL(H): 9 0 0 0 9 0 0 0 9 " + IPI, b"0\n# " + IPI, b"-2\n# " + IPI),
    *(b"1\n# CELL(abcABC): 9 9 9 90 90 " + IPI, b"1\n# CELL(GENH): 0 0 0 0 0 0 0 0 0 " + IPI),
    *(b"1\n# CELL(abcABC): 9 9 9 10 10 90 " + IPI, b"1\n# " + IPI + b"rubbish\nO 0 0 0\n"),
    *(b"1\n# positions{parsec}\nO 0 0 0\n", b"2\n# " + IPI, b"1\n# CELL{H}: 9 " + IPI),
    *(b"TITLE CELL(H):\n", b"TITLE  positions{x}\nEND\n", b"CRYST1\nATOM\nEND\n", b"HETATM" * 9),
    *(b"[1, 2]", b"{}", b'{"1": {}}', b"\xff\xfe1", b"1\n\nO 1e999 0 0\n", b"1\n\nO 0x1 0 0\n"),
    *(
        b"1\nProperties=species:S:1:pos:R:2\nO 0 0\n",
        b"1\nProperties=pos:R:3:species:S:1\n0 0 0 O\n",
    ),
    *(b'1\nLattice="9 0 0 0 9 0 0 0"\nO 0 0 0\n', b'1\nLattice="a b c"\nO 0 0 0\n'),
    *(b"1\nProperties=species:S:1:pos:R:3:masses:S:1\nO 0 0 0 x\n", b"1\ncharge\nO 0 0 0\n"),
)


@st.composite
def odd_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Files of any name that were damaged, cut, re-encoded, mixed up, or never were structures."""
    name, content, _ = draw(files())
    changes = ("damage", "damage", "cut", "garbage", "binary", "encoding", "suffix", "tail")
    change = draw(st.sampled_from(changes))
    if change == "damage":
        content = draw(damaged(content))
    elif change == "cut":
        content = content[: draw(st.integers(0, len(content)))]
    elif change == "garbage":
        content = draw(st.sampled_from(GARBAGE))
    elif change == "binary":
        content = draw(st.binary(max_size=200))
    elif change == "encoding":
        encoding = draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "utf-16-le"]))
        content = content.decode("utf-8", "replace").encode(encoding)
    elif change == "tail":
        content += draw(st.one_of(st.binary(max_size=20), st.sampled_from(GARBAGE)))
    if change == "suffix" or draw(st.integers(0, 5)) == 0:
        name = f"a.{draw(st.sampled_from(SUFFIXES))}"
    return name, content
