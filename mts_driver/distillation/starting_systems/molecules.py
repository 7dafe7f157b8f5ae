"""What the general student learns from: molecules, contacts and solutions, ready for teacher MD.

Geometries of molecules are ETKDG conformers relaxed with MMFF94, or those of ASE's G2 set; the
teacher relaxes every system again before its dynamics. All systems are neutral: ions occur in
boxes of water, with the ions that balance them.
"""

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from mts_driver.distillation.starting_systems.molecule_tables import (
    DIPEPTIDES,
    ION_BOXES,
    IONS,
    NOT_IN_SOLUTION,
    SIDE_CHAINS,
    SOLUTES,
    SOLVATED,
)
from mts_driver.distillation.starting_systems.packing import box, gas, in_contact
from mts_driver.errors import UserError

ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl")
CLUSTERS = 40
CONTACT_A = (2.0, 3.2)
"""Closest distance between two molecules in contact; a hydrogen bond O...H has 1.8 Å."""
MOST_WATERS = 6
WATER = "O"


def from_smiles(smiles: str, *, name: str, seed: int = 1) -> Atoms:
    """Three-dimensional geometry of a molecule: ETKDG conformer, relaxed with MMFF94.

    Returns
    -------
    ase.Atoms
        Å; not periodic. info has ``system`` (the name), ``smiles`` and ``charge`` in e.

    Raises
    ------
    UserError
        If RDKit is not installed, cannot read the SMILES or finds no geometry.
    """
    try:
        from rdkit import Chem
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
    except ModuleNotFoundError as error:
        raise UserError(
            "geometries from SMILES need RDKit: pip install 'mts-driver[general]'."
        ) from error

    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise UserError(f"molecule {name!r}: RDKit cannot read the SMILES {smiles!r}: correct it.")
    molecule = Chem.AddHs(molecule)
    if rdDistGeom.EmbedMolecule(molecule, randomSeed=seed) != 0:
        raise UserError(
            f"molecule {name!r}: RDKit finds no geometry for {smiles!r} with seed={seed}: check "
            "the SMILES or give another seed."
        )
    if rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=2000) < 0:
        raise UserError(
            f"molecule {name!r}: MMFF94 has no parameters for {smiles!r}: leave it out."
        )
    atoms = Atoms(
        [a.GetSymbol() for a in molecule.GetAtoms()], molecule.GetConformer().GetPositions()
    )
    atoms.info = {"system": name, "smiles": smiles, "charge": Chem.GetFormalCharge(molecule)}
    return atoms


def peptide(sequence: Sequence[str]) -> str:
    """SMILES of an L-peptide from one-letter codes of `SIDE_CHAINS`, capped as Ace-...-NMe."""
    residues = [
        "N1CCC[C@H]1C(=O)" if code == "P" else f"N{SIDE_CHAINS[code]}C(=O)" for code in sequence
    ]
    return f"CC(=O){''.join(residues)}NC"


def g2_systems(seed: int) -> list[Atoms]:
    """ASE's G2 molecules with closed shells and allowed elements; the seed plays no part."""
    from ase.build import molecule
    from ase.collections import g2

    found = []
    for name in g2.names:
        atoms = molecule(name)
        closed_shell = (
            not atoms.get_initial_magnetic_moments().any() and sum(atoms.numbers) % 2 == 0
        )
        known = set(atoms.get_chemical_symbols()) <= set(ELEMENTS)
        if len(atoms) > 1 and closed_shell and known and name not in NOT_IN_SOLUTION:
            found.append(Atoms(atoms.numbers, atoms.positions, info={"system": name}))
    return gas(found, name="g2", atoms_per_system=200)


def amino_acid_systems(seed: int) -> list[Atoms]:
    """Ace-X-NMe for every side chain, isolated."""
    return gas(_amino_acids(seed), name="amino-acids")


def dipeptide_systems(seed: int) -> list[Atoms]:
    """Ace-X-Y-NMe, isolated."""
    made = [from_smiles(peptide(pair), name=f"Ace-{pair}-NMe", seed=seed) for pair in DIPEPTIDES]
    return gas(made, name="dipeptides")


def solute_systems(seed: int) -> list[Atoms]:
    """Small molecules with the functional groups of drugs, isolated."""
    return gas(_solutes(seed), name="solutes")


def contact_systems(seed: int) -> list[Atoms]:
    """Pairs of different solutes or amino acids, and each of these with one to six waters."""
    rng = np.random.default_rng(seed)
    pool = _solutes(seed) + _amino_acids(seed)
    water = from_smiles(WATER, name="water", seed=seed)
    chosen = rng.permutation(len(pool))[:CLUSTERS]
    clusters = []
    for k, first in enumerate(chosen):
        if k % 2:
            others = [water] * int(rng.integers(1, MOST_WATERS + 1))
        else:
            others = [pool[(first + rng.integers(1, len(pool))) % len(pool)]]
        clusters.append(_cluster([pool[first], *others], rng))
    clusters += [_cluster([water] * n, rng) for n in range(2, MOST_WATERS + 1)]
    return gas(clusters, name="contacts")


def solution_systems(seed: int) -> list[Atoms]:
    """Water, and boxes of one or two solutes in water."""
    known = {a.info["system"]: a for a in _solutes(seed) + _amino_acids(seed)}
    water = from_smiles(WATER, name="water", seed=seed)
    boxes = [box([(water, 64)], name="water64", seed=seed)]
    for solutes, waters in SOLVATED.items():
        members = [(known[s], 1) for s in solutes]
        boxes.append(
            box([*members, (water, waters)], name=f"{'+'.join(solutes)}-in-water", seed=seed)
        )
    return boxes


def ion_systems(seed: int) -> list[Atoms]:
    """Boxes of ions or zwitterions in water, neutral overall."""
    known = {name: from_smiles(smiles, name=name, seed=seed) for name, smiles in IONS.items()}
    water = from_smiles(WATER, name="water", seed=seed)
    return [
        box(
            [*((known[i], 1) for i in ions), (water, waters)],
            name=f"{'+'.join(ions)}-in-water",
            seed=seed,
        )
        for ions, waters in ION_BOXES.items()
    ]


KINDS: dict[str, Callable[[int], list[Atoms]]] = {
    "g2": g2_systems,
    "amino-acids": amino_acid_systems,
    "dipeptides": dipeptide_systems,
    "solutes": solute_systems,
    "contacts": contact_systems,
    "solutions": solution_systems,
    "ions": ion_systems,
}


def starting_structures(kind: str, *, seed: int = 1) -> list[Atoms]:
    """All systems of one of `KINDS`, the same for the same seed.

    Returns
    -------
    list of ase.Atoms
        Å; ``info["system"]`` is a unique name and ``info["charge"]`` is 0.

    Raises
    ------
    UserError
        If the kind is unknown, or RDKit or packmol is not installed.
    """
    if kind not in KINDS:
        raise UserError(f"kind {kind!r} is unknown: choose from {', '.join(KINDS)}.")
    return KINDS[kind](seed)


def _amino_acids(seed: int) -> list[Atoms]:
    return [from_smiles(peptide(x), name=f"Ace-{x}-NMe", seed=seed) for x in [*SIDE_CHAINS, "P"]]


def _solutes(seed: int) -> list[Atoms]:
    return [from_smiles(smiles, name=name, seed=seed) for name, smiles in SOLUTES.items()]


def _cluster(members: Sequence[Atoms], rng: np.random.Generator) -> Atoms:
    """Members brought one by one into contact with those before them."""
    cluster = members[0]
    for member in members[1:]:
        cluster = in_contact(cluster, member, distance_A=rng.uniform(*CONTACT_A), rng=rng)
    cluster.info["system"] = "+".join(m.info["system"] for m in members)
    return cluster
