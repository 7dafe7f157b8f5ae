"""What a system and a topology of OpenMM say: honoured, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mts_driver.errors import UserError

if TYPE_CHECKING:
    from openmm import System
    from openmm.app import Topology

FORCE_FIELDS = (
    *("HarmonicBondForce", "HarmonicAngleForce", "PeriodicTorsionForce", "RBTorsionForce"),
    *("CMAPTorsionForce", "NonbondedForce", "CustomNonbondedForce", "GBSAOBCForce"),
    *("CustomGBForce", "CustomHbondForce", "GayBerneForce", "HippoNonbondedForce", "DrudeForce"),
    *("AmoebaGeneralizedKirkwoodForce", "AmoebaMultipoleForce", "AmoebaTorsionTorsionForce"),
    *("AmoebaVdwForce", "AmoebaWcaDispersionForce", "LCPOForce", "ConstantPotentialForce"),
)
"""What the models are instead of; restraints and biases are of other kinds."""
BAROSTATS = (
    *("MonteCarloBarostat", "MonteCarloAnisotropicBarostat", "MonteCarloMembraneBarostat"),
    "MonteCarloFlexibleBarostat",
)
NO_GROUP = (*BAROSTATS, "CMMotionRemover", "AndersenThermostat")
"""What acts whatever its force group."""
UNTOUCHED_NM = 2.0 * np.eye(3)
"""The box of a new system."""
SAME_NM = 1e-4
"""Files of structures round boxes."""


def check_particles(system: System, topology: Topology) -> np.ndarray:
    """Require a particle for every atom and an atom for every particle; their atomic numbers (N,).

    Raises
    ------
    UserError
        If one of them is missing, no atom of an element, or nothing can move.
    """
    import openmm
    from openmm import unit
    from openmm.app import Topology as Kind

    for name, value, kind in (("system", system, openmm.System), ("topology", topology, Kind)):
        if not isinstance(value, kind):
            raise UserError(f"{name} is {type(value).__name__}: give an {_called(kind)}.")
    count = system.getNumParticles()
    if count == 0 or topology.getNumAtoms() != count:
        raise UserError(
            f"system has {count} particles and topology {topology.getNumAtoms()} atoms: give those "
            "of the same atoms."
        )
    for k in range(count):
        if system.isVirtualSite(k):
            raise UserError(
                f"system: particle {k} is a virtual site, which the models do not know: use a "
                "topology of atoms only."
            )
    atoms = sorted(topology.atoms(), key=lambda atom: atom.index)
    for atom in atoms:
        if atom.element is None:
            raise UserError(
                f"topology: atom {atom.index} ({atom.name} of {atom.residue.name}) has no element: "
                "name it, and leave out particles that are no atoms."
            )
    masses = [system.getParticleMass(k).value_in_unit(unit.dalton) for k in range(count)]
    if not any(masses):
        raise UserError("system: all masses are 0, so that all atoms are held: leave some free.")
    return np.array([atom.element.atomic_number for atom in atoms])


def _called(kind: type) -> str:
    return {"System": "openmm.System", "Topology": "openmm.app.Topology"}[kind.__name__]


def loose_hydrogen(topology: Topology) -> int | None:
    """Return the first hydrogen that no bond of the topology joins to anything; None without."""
    bonded = {atom.index for bond in topology.bonds() for atom in (bond[0], bond[1])}
    loose = (
        atom.index
        for atom in topology.atoms()
        if atom.element.atomic_number == 1 and atom.index not in bonded
    )
    return min(loose, default=None)


def check_forces(system: System, groups: Sequence[int], *, prefix: str, loose: int | None) -> None:
    """Refuse forces of force fields, those in other groups, and barostats without molecules.

    Parameters
    ----------
    groups : sequence of int
        Those that integrators will know.
    prefix : str
        What the names of our forces begin with.
    loose : int or None
        Of `loose_hydrogen`.

    Raises
    ------
    UserError
        Naming the force.
    """
    for k, force in enumerate(system.getForces()):
        kind, name = type(force).__name__, force.getName()
        if name.startswith(prefix):
            continue
        if kind in FORCE_FIELDS:
            raise UserError(
                f"system: force {k} ({kind}) is of a force field, which the teacher is instead of: "
                f"remove it (system.removeForce({k})); a restraint can be a CustomBondForce, "
                "CustomExternalForce or such."
            )
        if kind in BAROSTATS and loose is not None:
            raise UserError(
                f"system: force {k} ({kind}) moves molecules, but hydrogen {loose} of topology has "
                "no bond: add them (topology.createStandardBonds or addBond)."
            )
        if kind not in NO_GROUP and force.getForceGroup() not in groups:
            known = " or ".join(map(str, groups))
            raise UserError(
                f"system: force {k} ({kind}) is in force group {force.getForceGroup()}, which the "
                f"integrator would leave out: put it into group {known} (setForceGroup)."
            )


def known_charge(topology: Topology, charge: int | None) -> int | None:
    """Return the total charge, e, of the parameter and of the topology; None if none says it.

    Raises
    ------
    UserError
        If it is no whole number, or they disagree.
    """
    if charge is not None and (isinstance(charge, bool) or not isinstance(charge, int)):
        raise UserError(f"charge={charge!r}: give a whole number, e, such as -1.")
    formal = [getattr(atom, "formalCharge", None) for atom in topology.atoms()]
    known = [int(q) for q in formal if q is not None]
    if not known:
        return charge
    if charge is not None and charge != sum(known):
        raise UserError(
            f"charge={charge:+d}, but the formal charges of topology sum to {sum(known):+d} e: "
            "correct one of them."
        )
    return sum(known)


def box_of(system: System, topology: Topology) -> np.ndarray | None:
    """Return the box (3, 3), nm, that a system should have; None if it is isolated.

    Raises
    ------
    UserError
        If system and topology do not agree.
    """
    system_nm = _in_nm(system.getDefaultPeriodicBoxVectors())
    untouched = np.array_equal(system_nm, UNTOUCHED_NM)
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        if not untouched or system.usesPeriodicBoundaryConditions():
            what = "a force that is periodic" if untouched else f"the box {_shown(system_nm)} nm"
            raise UserError(
                f"topology has no box, but system has {what}: call topology.setPeriodicBoxVectors("
                "system.getDefaultPeriodicBoxVectors()) if it is periodic, or make the system "
                "anew without."
            )
        return None
    box_nm = _in_nm(vectors)
    if not untouched:
        if not np.allclose(system_nm, box_nm, rtol=0, atol=SAME_NM):
            raise UserError(
                f"topology has the box {_shown(box_nm)} nm and system {_shown(system_nm)} nm: "
                "correct one (topology.setPeriodicBoxVectors, system.setDefaultPeriodicBoxVectors)."
            )
        return system_nm
    return box_nm


def _in_nm(vectors: Any) -> np.ndarray:
    from openmm import unit

    return np.array([list(vector.value_in_unit(unit.nanometer)) for vector in vectors], float)


def _shown(box_nm: np.ndarray) -> str:
    return str(np.round(box_nm, 4).tolist())
