"""Structures: what a file says is kept or refused, and nothing else ever happens."""

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from hypothesis import event, given
from hypothesis import strategies as st
from said import Said, extxyz
from strategies import cases
from strategies_structures import files, odd_files, sayings, wrong_files

from mts_driver.errors import UserError
from mts_driver.structures.files import (
    along_axes,
    boxed,
    read_structure,
    read_systems,
    write_start,
)
from mts_driver.structures.fixed import held_atoms
from mts_driver.structures.masses import repartitioned_masses

ROUNDED_A = {"pdb": 2e-3, "cif": 1e-5}
"""Digits of a format that has few."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


def reads(
    folder: Path, name: str, content: bytes, *, keep: bool = False
) -> tuple[Atoms, list[str]]:
    """Write a file and read it."""
    (folder / name).write_bytes(content)
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ASE's readers
        atoms = read_structure(folder / name, tell=told.append, keep_velocities=keep)
    return atoms, told


def check_any(atoms: Atoms) -> None:
    """What every structure is that the reader lets through."""
    assert len(atoms) and np.isfinite(atoms.positions).all() and (atoms.numbers > 0).all()
    assert np.isfinite(atoms.cell.array).all()
    assert atoms.pbc.all() == atoms.pbc.any()
    if atoms.pbc.any():
        assert np.linalg.det(atoms.cell.array) > 0
    masses = atoms.get_masses()
    assert np.isfinite(masses).all() and (masses > 0).all()
    charge, multiplicity = atoms.info.get("charge", 0), atoms.info.get("multiplicity", 1)
    assert type(charge) is int and type(multiplicity) is int
    electrons = int(atoms.numbers.sum()) - charge
    if multiplicity != 1:
        assert 1 <= multiplicity <= electrons + 1 and (electrons - multiplicity) % 2 == 1
    assert len(held_atoms(atoms)) < len(atoms)
    assert [type(one).__name__ for one in atoms.constraints] in ([], ["FixAtoms"])
    if atoms.has("momenta"):
        assert np.isfinite(atoms.get_velocities()).all()


def check_kept(said: Said, atoms: Atoms, suffix: str) -> None:
    """All that a file says."""
    rounded_A = ROUNDED_A.get(suffix, 1e-7)
    assert atoms.get_chemical_symbols() == said.symbols
    assert atoms.pbc.tolist() == [said.periodic] * 3
    if said.periodic:
        same_crystal(said, atoms, rounded_A)
    else:
        np.testing.assert_allclose(atoms.positions, said.positions_A, atol=rounded_A)
    np.testing.assert_allclose(atoms.get_masses(), said.physical_Da, atol=1e-3)
    assert atoms.info.get("charge", 0) == (said.charge or 0)
    assert atoms.info.get("multiplicity", 1) == (said.multiplicity or 1)
    held = np.flatnonzero(said.held) if said.held is not None else []
    assert held_atoms(atoms).tolist() == list(held)


def check_velocities(said: Said, atoms: Atoms, told: list[str], *, keep: bool) -> None:
    """Kept as they are, with the masses of the file, or said to be drawn anew; held atoms rest."""
    if said.momenta is None or not keep:
        assert not atoms.has("momenta")
        assert any("drawn anew" in one for one in told) == (said.momenta is not None)
        return
    velocities = said.momenta / said.physical_Da[:, None]
    if said.held is not None:
        assert any("do not move" in one for one in told) == velocities[said.held].any()
        velocities[said.held] = 0.0
    np.testing.assert_allclose(atoms.get_velocities(), velocities, atol=1e-6)


def same_crystal(said: Said, atoms: Atoms, rounded_A: float) -> None:
    """The same lattice vectors but for their order, and the atoms where they were."""
    assert said.cell_A is not None
    found = sorted(np.linalg.norm(atoms.cell.array, axis=1))
    np.testing.assert_allclose(found, sorted(np.linalg.norm(said.cell_A, axis=1)), atol=rounded_A)
    assert atoms.cell.volume == pytest.approx(abs(np.linalg.det(said.cell_A)), rel=rounded_A)
    assert np.linalg.det(atoms.cell.array) > 0
    original = Atoms(said.symbols, said.positions_A, cell=said.cell_A, pbc=True)
    there, here = (one.get_all_distances(mic=True) for one in (original, atoms))
    np.testing.assert_allclose(here, there, atol=4 * rounded_A)
    if rounded_A < 1e-6:
        np.testing.assert_allclose(atoms.positions, said.positions_A, atol=rounded_A)


@cases(120)
@given(file=files(), keep=st.booleans())
def test_what_a_file_says_is_kept(file, keep, folder):
    name, content, said = file
    atoms, told = reads(folder, name, content, keep=keep)
    check_any(atoms)
    check_kept(said, atoms, name.partition(".")[2])
    check_velocities(said, atoms, told, keep=keep)
    if said.frames > 1:
        assert any(f"{said.frames} frames" in one for one in told)
    event(name.partition(".")[2])


@cases(60)
@given(file=wrong_files())
def test_what_cannot_be_is_refused(file, folder):
    name, content = file
    with pytest.raises(UserError) as refused:
        reads(folder, "wrong.xyz", content)
        event(f"{name} was taken")
    assert "wrong.xyz" in str(refused.value) and len(str(refused.value)) < 1500
    event(name.partition(" ")[0])


@cases(100)
@given(file=odd_files())
def test_whatever_a_file_holds_it_is_understood_or_refused(file, folder):
    name, content = file
    try:
        atoms, _ = reads(folder, name, content)
    except UserError as error:
        assert 20 < len(str(error)) < 3000
        event("refused")
        return
    finally:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    check_any(atoms)
    event("read")


@cases(50)
@given(said=sayings(), hydrogen_mass_Da=st.sampled_from([0.0, 0.0, 3.0, 4.0]))
def test_a_start_is_read_back_equal(said, hydrogen_mass_Da, folder):
    """By the reader, and by ASE, which is what i-PI reads it with."""
    atoms, _ = reads(folder, "a.xyz", extxyz(said).encode())
    atoms, _ = along_axes(boxed(atoms)[0])
    try:
        masses = repartitioned_masses(atoms, hydrogen_mass_Da)
    except UserError as error:
        assert "hydrogen_mass_Da" in str(error)
        event("too heavy")
        return
    write_start(folder / "start.extxyz", atoms, masses)
    again, _ = reads(folder, "start.extxyz", (folder / "start.extxyz").read_bytes())
    check_any(again)
    plain = read(folder / "start.extxyz")
    np.testing.assert_allclose(plain.get_masses(), masses, atol=1e-8)
    for found in (again, plain):
        assert found.get_chemical_symbols() == atoms.get_chemical_symbols()
        np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-8)
        np.testing.assert_allclose(found.cell.array, atoms.cell.array, atol=1e-8)
        assert found.pbc.tolist() == atoms.pbc.tolist()
        assert held_atoms(found).tolist() == held_atoms(atoms).tolist()
    np.testing.assert_allclose(again.get_masses(), atoms.get_masses(), atol=2e-8)
    assert {k: again.info.get(k) for k in ("charge", "multiplicity")} == {
        k: atoms.info.get(k) for k in ("charge", "multiplicity")
    }
    event(f"{hydrogen_mass_Da:g} Da")


@cases(10)
@given(
    said=st.lists(sayings(), min_size=1, max_size=4),
    names=st.lists(st.sampled_from(["a", "b", "c", "d", ""]), min_size=4, max_size=4),
    index=st.integers(-6, 6),
)
def test_frames_are_counted_and_systems_have_names(said, names, index, folder):
    text = ""
    for one, name in zip(said, names, strict=False):
        header = {**one.header, **({"system": name} if name else {})}
        text += extxyz(Said(**{**vars(one), "header": header, "frames": 1}))
    (folder / "many.xyz").write_text(text)
    given_names = names[: len(said)]
    unique = all(given_names) and len(set(given_names)) == len(given_names)
    try:
        systems = read_systems(folder / "many.xyz")
    except UserError as error:
        assert given_names[-1] and not unique and "frames have the name" in str(error)
    else:
        assert unique or not given_names[-1]
        kept = said if unique else said[-1:]
        assert [len(atoms) for atoms in systems] == [len(one.labels) for one in kept]
        for one, atoms in zip(kept, systems, strict=True):
            check_kept(one, atoms, "xyz")
    try:
        chosen = read_structure(f"{folder}/many.xyz@{index}")
    except UserError as error:
        assert f"has no frame {index}" in str(error) and not -len(said) <= index < len(said)
    else:
        check_kept(said[index], chosen, "xyz")
