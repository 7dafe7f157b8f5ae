"""Reading structures, X-H bonds, repartitioned masses and the start that i-PI reads."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read

from mts_driver.errors import UserError
from mts_driver.structures.files import boxed, read_structure, write_start
from mts_driver.structures.masses import hydrogen_bonds_to_heavy, repartitioned_masses


def test_bonds_cross_the_cell_and_take_the_nearest_heavy_atom():
    atoms = Atoms("OHH", [[0.1, 0, 0], [9.2, 0, 0], [0.1, 0.96, 0]], cell=[10] * 3, pbc=True)
    assert hydrogen_bonds_to_heavy(atoms).tolist() == [[1, 0], [2, 0]]
    # a strong hydrogen bond: 1.1 Å to one oxygen, 1.3 to the other
    shared = Atoms("OHO", [[0, 0, 0], [1.1, 0, 0], [2.4, 0, 0]])
    assert hydrogen_bonds_to_heavy(shared).tolist() == [[1, 0]]


def test_masses_move_to_the_hydrogens_and_none_is_lost():
    atoms = molecule("CH3CH2OH")
    masses = repartitioned_masses(atoms, 3.0)
    assert masses.sum() == pytest.approx(atoms.get_masses().sum(), abs=1e-12)
    assert (masses[atoms.numbers == 1] == 3.0).all()
    assert (repartitioned_masses(atoms, 0) == atoms.get_masses()).all()


def test_a_lonely_hydrogen_and_too_heavy_hydrogens_are_errors():
    with pytest.raises(UserError, match=r"hydrogen 1 has no heavy .*hydrogen_mass_Da=0"):
        repartitioned_masses(Atoms("OH", [[0, 0, 0], [3, 0, 0]]), 4.0)
    with pytest.raises(UserError, match="hydrogen_mass_Da=7"):
        repartitioned_masses(molecule("CH4"), 7.0)


def test_an_isolated_molecule_gets_a_box_that_is_no_period():
    atoms, made = boxed(molecule("H2O"))
    assert made and not atoms.pbc.any() and atoms.cell.lengths().min() >= 40
    periodic = Atoms("O", cell=[9] * 3, pbc=True)
    assert not boxed(periodic)[1]


def test_the_start_keeps_masses_and_positions(tmp_path):
    atoms, _ = boxed(molecule("CH3OH"))
    masses = repartitioned_masses(atoms, 3.0)
    write_start(tmp_path / "start.extxyz", atoms, masses)
    found = read(tmp_path / "start.extxyz")
    np.testing.assert_allclose(found.get_masses(), masses, atol=1e-8)
    np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-8)
    assert found.get_chemical_symbols() == atoms.get_chemical_symbols()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n\nO nan 0 0\n", "position of atom 0 is not finite"),
        ("0\n\n", "no atoms|cannot be read"),
        ("1\n\nQq 0 0 0\n", "cannot be read.*element"),
        ("nonsense", "cannot be read"),
        ('1\nLattice="9 0 0 0 9 0 0 0 9" pbc="T T F"\nO 0 0 0\n', "full three-dimensional"),
    ],
)
def test_a_broken_file_is_a_clear_error(tmp_path, content, message):
    file = tmp_path / "broken.xyz"
    file.write_text(content)
    with pytest.raises(UserError, match=f"(?s){message}"):
        read_structure(file)


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_structure(tmp_path / "none.xyz")
