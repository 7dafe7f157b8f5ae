"""The general training set: neutral, no overlaps, isolated molecules isolated, reproducible."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read
from ase.neighborlist import neighbor_list
from ase.units import kg, m
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import mts_driver.cli.molecules as cli
from mts_driver.distillation.starting_systems.molecules import (
    CONTACT_A,
    ELEMENTS,
    KINDS,
    from_smiles,
    peptide,
    starting_structures,
)
from mts_driver.distillation.starting_systems.packing import box, gas, in_contact
from mts_driver.errors import UserError
from mts_driver.structures.bonds import molecules as bonded

rdkit_needed = pytest.mark.skipif(find_spec("rdkit") is None, reason="RDKit is not installed")


def groups(atoms: Atoms, reach_A: float) -> np.ndarray:
    """Number of the group of every atom, groups being further apart than the reach."""
    i, j = neighbor_list("ij", atoms, reach_A)
    linked = coo_matrix((np.ones(len(i)), (i, j)), shape=(len(atoms), len(atoms)))
    return connected_components(linked, directed=False)[1]


@pytest.fixture(scope="module")
def systems() -> list[Atoms]:
    pytest.importorskip("rdkit")
    pytest.importorskip("packmol")
    return [atoms for kind in KINDS for atoms in starting_structures(kind, seed=1)]


def test_size_of_the_set(systems):
    assert 25 <= len(systems) <= 40
    assert all(140 <= len(atoms) <= 350 for atoms in systems)
    assert {s for atoms in systems for s in atoms.get_chemical_symbols()} == set(ELEMENTS)


def test_names_are_unique(systems):
    names = [atoms.info["system"] for atoms in systems]
    assert len(set(names)) == len(names)
    assert not any(" " in name for name in names)


def test_systems_are_neutral_with_closed_shells(systems):
    for atoms in systems:
        assert atoms.info["charge"] == 0
        assert atoms.numbers.sum() % 2 == 0


def test_ions_are_in_the_boxes_meant_for_them():
    pytest.importorskip("rdkit")
    pytest.importorskip("packmol")
    found = {atoms.info["system"]: atoms for atoms in starting_structures("ions")}
    atoms = found["chloride+ammonium-in-water"]
    heavy = {n: (bonded(atoms) == bonded(atoms)[atoms.numbers == n][0]).sum() for n in (7, 17)}
    assert heavy == {7: 5, 17: 1}


def test_no_two_atoms_overlap_and_molecules_stay_apart(systems):
    for atoms in systems:
        assert len(neighbor_list("i", atoms, 0.7)) == 0, atoms.info["system"]
        member = bonded(atoms)
        i, j, d = neighbor_list("ijd", atoms, 1.9)
        assert d[member[i] != member[j]].min(initial=1.9) > 1.85, atoms.info["system"]


def test_gas_systems_hold_molecules_beyond_the_reach_of_the_teacher(systems):
    gases = [atoms for atoms in systems if not atoms.pbc.any()]
    assert len(gases) > 10
    for atoms in gases:
        far = groups(atoms, 15.99)
        assert far.max() + 1 == len(atoms.info["members"].split())
        assert (far == groups(atoms, 4.0)).all()


def test_boxes_have_the_density_of_a_solution(systems):
    boxes = [atoms for atoms in systems if atoms.pbc.all()]
    assert len(boxes) > 10
    for atoms in boxes:
        assert 0.9 < atoms.get_masses().sum() / kg / 1e3 / (atoms.get_volume() / m**3) < 1.0


@rdkit_needed
def test_the_same_seed_gives_the_same_systems():
    for kind in ("contacts", "ions"):
        if kind == "ions":
            pytest.importorskip("packmol")
        first, again, other = (starting_structures(kind, seed=s) for s in (3, 3, 4))
        for a, b in zip(first, again, strict=True):
            assert a == b and a.info == b.info
        assert any(
            len(a) != len(b) or (a.positions != b.positions).any()
            for a, b in zip(first, other, strict=False)
        )


@rdkit_needed
@pytest.mark.parametrize("code", "AVLISTCMDENQKRHFYWP")
def test_amino_acids_are_the_natural_ones(code):
    from rdkit import Chem

    ours, natural = Chem.MolFromSmiles(peptide(code)), Chem.MolFromSequence(code)
    side_chain = Chem.ReplaceCore(natural, Chem.MolFromSmarts("NCC=O"))
    assert ours.HasSubstructMatch(Chem.MolFromSmarts("CC(=O)NCC(=O)NC"))
    assert side_chain is not None
    labels = [[c for _, c in Chem.FindMolChiralCenters(x)] for x in (ours, natural)]
    assert labels[0] == labels[1]


def so3lr_forces(atoms: Atoms) -> np.ndarray:
    from mts_driver.potentials import load_potential

    potential = load_potential("so3lr", atoms.numbers, dtype="float64")
    zeros = torch.zeros(3, 3, dtype=torch.float64)
    return potential(torch.tensor(atoms.positions), zeros).forces.numpy()


@rdkit_needed
def test_molecules_of_a_gas_are_beyond_the_reach_of_the_teacher():
    """Forces don't change with the gap; copies of a molecule have its forces alone."""
    pytest.importorskip("so3krates_torch")
    mixed = [from_smiles(s, name=s) for s in ("CC(=O)NC", "COP(=O)(O)OC", "CSC", "OCC(F)(F)F")]
    near, far = (so3lr_forces(gas(mixed, gap_A=gap)[0]) for gap in (16.0, 40.0))
    assert np.abs(near).max() > 0.1
    np.testing.assert_allclose(near, far, atol=1e-6)
    copies = so3lr_forces(gas(mixed[:1] * 3)[0]).reshape(3, -1, 3)
    alone = so3lr_forces(mixed[0])
    for copy in copies:
        np.testing.assert_allclose(copy, alone, atol=1e-6)


def test_different_molecules_of_a_gas_share_the_total_charge_and_little_else(systems):
    """SO3LR spreads the rest of the charge over all atoms, which bounds the equality to alone."""
    pytest.importorskip("so3krates_torch")
    system = next(a for a in systems if a.info["system"] == "amino-acids-00")
    together, member = so3lr_forces(system), groups(system, 4.0)
    alone = np.zeros_like(together)
    for k in range(member.max() + 1):
        alone[member == k] = so3lr_forces(system[member == k])
    difference = together - alone
    assert np.sqrt((difference**2).mean()) < 0.01 * np.sqrt((alone**2).mean())
    # the rest of the charge shifts forces but pushes no molecule as a whole
    for k in range(member.max() + 1):
        assert np.abs(together[member == k].sum(axis=0)).max() < 1e-3


def test_gas_shares_atoms_evenly():
    frames = [molecule(name) for name in ("C6H6", "H2O", "CH4", "C4H4NH", "CH3OH", "NH3")]
    systems = gas(frames, name="mix", atoms_per_system=20, gap_A=16.0)
    assert [atoms.info["system"] for atoms in systems] == ["mix-00", "mix-01"]
    sizes = [len(atoms) for atoms in systems]
    assert sum(sizes) == sum(map(len, frames)) and abs(sizes[0] - sizes[1]) <= 4
    assert len(gas(frames[:1], atoms_per_system=5)) == 1


def test_contacts_have_the_distance_asked_for():
    rng = np.random.default_rng(1)
    first, second = molecule("C6H6"), molecule("CH3CONH2")
    for distance in np.linspace(*CONTACT_A, 5):
        pair = in_contact(first, second, distance_A=distance, rng=rng)
        between = pair.get_all_distances()[: len(first), len(first) :]
        assert between.min() == pytest.approx(distance, abs=1e-9)
        inside = pair[len(first) :].get_all_distances()
        np.testing.assert_allclose(inside, second.get_all_distances(), atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gas([]), "no molecule"),
        (lambda: gas([molecule("H2O")], gap_A=0.0), "gap_A=0 must be positive"),
        (lambda: gas([Atoms("He", cell=[3] * 3, pbc=True)]), "He is periodic"),
        (lambda: starting_structures("salts"), "'salts' is unknown: choose from g2,"),
    ],
)
def test_wrong_arguments_are_clear_errors(call, message):
    with pytest.raises(UserError, match=message):
        call()


@rdkit_needed
def test_a_wrong_smiles_is_a_clear_error():
    with pytest.raises(UserError, match=r"'ring': RDKit cannot read the SMILES 'C1CC'"):
        from_smiles("C1CC", name="ring")
    with pytest.raises(UserError, match=r"'iron': .*\[Fe\]"):
        from_smiles("[Fe]C", name="iron")


def test_a_packing_that_is_too_dense_is_a_clear_error():
    pytest.importorskip("packmol")
    with pytest.raises(UserError, match="no packing of 'crushed' at density_g_cm3=9"):
        box([(molecule("H2O"), 3)], name="crushed", density_g_cm3=9.0)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("rdkit", lambda: from_smiles("O", name="water")),
        ("packmol.cli", lambda: box([(molecule("H2O"), 2)], name="two")),
    ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'mts-driver\[general\]'"):
        call()


def test_the_command_writes_one_frame_a_system(tmp_path):
    assert ", ".join(KINDS) == cli.KIND_NAMES
    file = tmp_path / "general.extxyz"
    cli.molecules(output=file, seed=1, only=["g2"], force=False)
    frames = read(file, ":")
    assert [atoms.info["system"] for atoms in frames] == ["g2-00", "g2-01", "g2-02"]
    with pytest.raises(UserError, match="exists: choose another name"):
        cli.molecules(output=file, seed=1, only=["g2"], force=False)
    with pytest.raises(UserError, match=r"--only salts is unknown"):
        cli.molecules(output=file, seed=1, only=["salts"], force=True)
    with pytest.raises(UserError, match=r"must end in \.extxyz"):
        cli.molecules(output=tmp_path / "general.pdb", seed=1, only=None, force=False)
