"""The atoms that each driver of a run will be asked about, from what i-PI has read.

i-PI tells a driver neither the elements nor which system asks. A driver is built for one list of
elements, so that all systems that use it must have the same.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms
from ipi.utils.depend import dstrip

from mts_driver.errors import UserError
from mts_driver.structures.reading.checks import check_structure
from mts_driver.structures.reading.ipi_labels import element_of
from mts_driver.units import BOHR_A


def check_systems(simulation: Any) -> None:
    """Require masses and cells that can be simulated, whatever file they come from.

    Raises
    ------
    UserError
        If a mass is not finite or not positive, or a cell is left-handed.
    """
    for number, system in enumerate(simulation.syslist):
        name = _name(simulation, number)
        masses = np.array(dstrip(system.beads.m))
        wrong = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
        if len(wrong):
            label = system.beads.names[wrong[0]]
            raise UserError(
                f"{name}: atom {wrong[0]} ({label}) has no mass that is a positive number "
                f"({len(wrong)} such atoms): correct its label or <masses>."
            )
        cell = np.array(dstrip(system.cell.h))
        if not np.isfinite(cell).all():
            raise UserError(f"{name}: its cell is not finite: correct the file or <cell>.")
        if np.linalg.det(cell) < 0:
            raise UserError(
                f"{name}: its cell is left-handed (volume {np.linalg.det(cell) * BOHR_A**3:.4g} "
                "Å³), which turns the sign of pressures: exchange two of its vectors, which is the "
                "same crystal, as `mts prepare` does."
            )


def atoms_of(system: Any, *, periodic: bool, name: str = "the system") -> Atoms:
    """Return the atoms of an i-PI system, of its first bead, in its cell.

    Raises
    ------
    UserError
        If a label names no element.
    """
    labels = [str(label) for label in system.beads.names]
    symbols = [element_of(label) for label in labels]
    for number, (label, symbol) in enumerate(zip(labels, symbols, strict=True)):
        if symbol is None:
            raise UserError(
                f"{name}: atom {number} has the label {label!r}, which is no element and no "
                "isotope that i-PI knows (D, T, C13, O18, ...): no model can be built for it."
            )
    positions = np.array(dstrip(system.beads.q)[0]).reshape(-1, 3) * BOHR_A
    cell = np.array(dstrip(system.cell.h)).T * BOHR_A
    return Atoms(symbols, positions, cell=cell, pbc=periodic)


def structure_for(simulation: Any, forcefield: str, *, periodic: bool) -> Atoms:
    """Return the atoms that the driver of a force field will be asked about.

    Those of the first system that uses it, or of the first of all if none does.

    Raises
    ------
    UserError
        If the systems that use it differ in their atoms or the order of them, or the atoms are
        none to start from (see `mts_driver.structures.reading.checks`).
    """
    systems = simulation.syslist
    users = [n for n, system in enumerate(systems) if forcefield in _used_by(simulation, system)]
    driver = _forcefields(simulation)[forcefield]
    found = []
    for number in users or [0]:
        name = _name(simulation, number)
        atoms = atoms_of(systems[number], periodic=periodic, name=name)
        active = getattr(driver, "active", np.array([-1]))
        # a socket may be about some of the atoms only
        atoms = atoms if active[0] == -1 else atoms[active]
        check_structure(atoms, name)
        found.append(atoms)
    for number, atoms in zip(users[1:], found[1:], strict=True):
        _check_same(forcefield, (users[0], found[0]), (number, atoms))
    return found[0]


def _check_same(forcefield: str, one: tuple[int, Atoms], other: tuple[int, Atoms]) -> None:
    (k, first), (m, second) = one, other
    who = f"systems {k + 1} and {m + 1} of the input share the force field {forcefield!r}"
    remedy = "or give each system an <ffsocket> of its own, which its <forces> name"
    if len(first) != len(second):
        raise UserError(
            f"{who}, whose driver is built for one list of atoms, but have {len(first)} and "
            f"{len(second)} atoms: give them the same atoms, {remedy}."
        )
    differ = np.flatnonzero(first.numbers != second.numbers)
    if len(differ):
        n = int(differ[0])
        raise UserError(
            f"{who}, whose driver is built for one order of atoms, but atom {n} is "
            f"{first.symbols[n]} in the first and {second.symbols[n]} in the second: give both "
            f"the same order of atoms, {remedy}."
        )


def _used_by(simulation: Any, system: Any) -> set[str]:
    """Names of the force fields that a system uses, and of those within them."""
    parts = [*system.fcomp, *getattr(system.ensemble, "bcomp", [])]
    found: set[str] = set()
    for part in parts:
        if part.ffield in simulation.fflist:
            found |= {ff.name for ff in _with_members(simulation.fflist[part.ffield])}
    return found


def _forcefields(simulation: Any) -> dict[str, Any]:
    everything = (ff for top in simulation.fflist.values() for ff in _with_members(top))
    return {ff.name: ff for ff in everything}


def _with_members(forcefield: Any) -> Iterator[Any]:
    """Return a force field and, of a committee or of rotations, those that it is made of."""
    yield forcefield
    for member in (*getattr(forcefield, "fflist", ()), getattr(forcefield, "ff", None)):
        if member is not None:
            yield from _with_members(member)


def _name(simulation: Any, number: int) -> str:
    """Call the system by its number where there are several."""
    alone = len(simulation.syslist) == 1
    return "the start of the run" if alone else f"the start of system {number + 1}"
