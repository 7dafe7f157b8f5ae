"""From ASE's atoms to what OpenMM starts from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units

from mts_driver.errors import UserError
from mts_driver.structures.bonds import bonded_pairs, connected
from mts_driver.structures.files import along_axes, read_atoms
from mts_driver.structures.fixed import held_atoms
from mts_driver.structures.masses import repartitioned_masses, with_masses

if TYPE_CHECKING:
    from openmm import System
    from openmm.app import Topology
    from openmm.unit import Quantity

A_FS_IN_NM_PS = 100.0


@dataclass(frozen=True, eq=False)
class OpenMMStart:
    """Atoms in the terms of OpenMM.

    Attributes
    ----------
    system : openmm.System
        Of masses and a box, without forces.
    topology : openmm.app.Topology
        With bonds, by distance, and a residue for each molecule.
    positions : openmm.unit.Quantity
        Shape (N, 3).
    velocities : openmm.unit.Quantity or None
        Shape (N, 3), if the atoms have any.
    charge, multiplicity : int
        For `mts_driver.interfaces.openmm.add_forces`.
    """

    system: System
    topology: Topology
    positions: Quantity
    velocities: Quantity | None
    charge: int
    multiplicity: int


def start_from_ase(atoms: Atoms, *, hydrogen_mass_Da: float = 0.0) -> OpenMMStart:
    """Return atoms of ASE as a system and a topology of OpenMM.

    A cell is turned, with atoms and velocities, so that a lies along x and b in the plane of x and
    y, and its vectors are made as short as they can be, as OpenMM has it.

    Parameters
    ----------
    atoms : ase.Atoms
        Charge, multiplicity, masses with isotopes, cell and ``FixAtoms`` (masses of 0) are
        honoured, and what cannot be is refused.
    hydrogen_mass_Da : float
        Mass of hydrogens, Da, taken from the heavy atoms that they are bonded to; 0: as they are.
        Every atom keeps its kinetic energy.

    Raises
    ------
    UserError
        If something that the atoms say cannot be honoured, or OpenMM is not installed.

    Warns
    -----
    UserWarning
        About each thing that was converted.
    """
    try:
        import openmm
        from openmm import unit
    except ImportError as error:
        raise UserError(f"needs OpenMM ({error}): pip install 'mts-driver[openmm]'") from error
    understood = read_atoms(atoms, tell=partial(warnings.warn, stacklevel=3))
    if not 0 <= hydrogen_mass_Da < np.inf:
        raise UserError(f"hydrogen_mass_Da={hydrogen_mass_Da!r}: give a finite number, 0 or above.")
    periodic = bool(understood.pbc.all())
    if periodic:
        understood, _ = along_axes(understood)
    masses_of_run_Da = repartitioned_masses(understood, hydrogen_mass_Da)
    masses_Da = masses_of_run_Da.copy()
    masses_Da[held_atoms(understood)] = 0.0
    system, topology = openmm.System(), _topology(understood)
    for mass in masses_Da.tolist():
        system.addParticle(mass * unit.dalton)
    if periodic:
        box_nm = 0.1 * _reduced(understood.cell.array)
        system.setDefaultPeriodicBoxVectors(*box_nm)
        topology.setPeriodicBoxVectors(box_nm * unit.nanometer)
    multiplicity = int(understood.info.get("multiplicity", 1))
    if multiplicity != 1:
        warnings.warn(
            f"atoms have a multiplicity of {multiplicity}, which a topology cannot tell: give it "
            f"to add_forces, with multiplicity={multiplicity}.",
            stacklevel=2,
        )
    velocities = None
    if understood.has("momenta"):
        kept = with_masses(understood.get_velocities(), understood.get_masses(), masses_of_run_Da)
        nm_ps = A_FS_IN_NM_PS * units.fs * kept
        velocities = nm_ps * (unit.nanometer / unit.picosecond)
    return OpenMMStart(
        system,
        topology,
        understood.positions * unit.angstrom,
        velocities,
        int(understood.info.get("charge", 0)),
        multiplicity,
    )


def _reduced(cell: np.ndarray) -> np.ndarray:
    """Return the shortest vectors of the same lattice that are lower triangular."""
    a, b, c = cell.copy()
    c -= b * np.round(c[1] / b[1])
    c -= a * np.round(c[0] / a[0])
    b -= a * np.round(b[0] / a[0])
    return np.array([a, b, c])


def _topology(atoms: Atoms) -> Topology:
    """Return atoms and bonds; a residue ends where the next atom is of another molecule."""
    from openmm.app import Element
    from openmm.app import Topology as Kind

    topology = Kind()
    chain = topology.addChain()
    pairs = bonded_pairs(atoms)
    molecule = connected(pairs.i, pairs.j, len(atoms))
    made = []
    for k, number in enumerate(atoms.numbers.tolist()):
        if k == 0 or molecule[k] != molecule[k - 1]:
            formula = sorted(atoms.symbols[molecule == molecule[k]])
            residue = topology.addResidue("HOH" if formula == ["H", "H", "O"] else "MOL", chain)
        name = f"{atoms.symbols[k]}{len(list(residue.atoms())) + 1}"
        # a topology has charges of atoms only, whose sum counts
        formal = atoms.info.get("charge", 0) if k == 0 else 0
        element = Element.getByAtomicNumber(number)
        made.append(topology.addAtom(name, element, residue, formalCharge=formal))
    for i, j in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True):
        topology.addBond(made[i], made[j])
    return topology
