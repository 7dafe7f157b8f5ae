"""SPICE-2 files: read from a small one in that format."""

import sys

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write

from mts_driver.distillation.starting_systems.packing import gas
from mts_driver.distillation.starting_systems.spice import formal_charge, read_spice
from mts_driver.errors import UserError
from mts_driver.units import BOHR_A

h5py = pytest.importorskip("h5py")

ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl")
DIPEPTIDES, IONS = "SPICE Dipeptides v1.3", "SPICE Ion Pairs v1.2"
ETHANOL = "[H:4][C:1]([H:5])([H:6])[C:2]([H:7])([H:8])[O:3][H:9]"
AMMONIUM = "[H:2][N+:1]([H:3])([H:4])[H:5]"
METHYL_BROMIDE = "[H:3][C:1]([H:4])([H:5])[Br:2]"


def add(file, name, atoms, smiles, subset, *, count):
    """One group as the downloader of the dataset writes it; conformations differ by a rattle."""
    group = file.create_group(name)
    text = h5py.string_dtype()
    group.create_dataset("subset", data=[subset], dtype=text)
    group.create_dataset("smiles", data=[smiles], dtype=text)
    group.create_dataset("atomic_numbers", data=atoms.numbers, dtype=np.int16)
    moved = []
    for k in range(count):
        copy = atoms.copy()
        copy.rattle(0.05, seed=k)
        moved.append(copy.positions / BOHR_A)
    for key, values, units in (
        ("conformations", np.array(moved, np.float32), "bohr"),
        ("dft_total_energy", np.zeros(count), "hartree"),
        ("dft_total_gradient", np.zeros((count, len(atoms), 3), np.float32), "hartree/bohr"),
    ):
        group.create_dataset(key, data=values).attrs["units"] = units


@pytest.fixture
def spice(tmp_path):
    path = tmp_path / "SPICE.hdf5"
    ammonium = molecule("CH4")
    ammonium.numbers[0] = 7
    bromide = molecule("CH3Cl")
    bromide.numbers[bromide.numbers == 17] = 35
    with h5py.File(path, "w") as file:
        add(file, "CCO", molecule("CH3CH2OH"), ETHANOL, DIPEPTIDES, count=5)
        add(file, "[NH4+]", ammonium, AMMONIUM, IONS, count=3)
        add(file, "cbr", bromide, METHYL_BROMIDE, DIPEPTIDES, count=3)
    return path


def test_charged_molecules_and_other_elements_are_skipped(spice, capsys):
    frames = read_spice(spice, elements=ELEMENTS)
    assert [f.info["system"] for f in frames] == ["CCO"]
    assert frames[0].info["smiles"] == ETHANOL
    assert frames[0].info["subset"] == DIPEPTIDES
    told = capsys.readouterr().out
    assert "1 molecules, 1 conformations read, 1 charged skipped, 1 with other elements" in told


def test_positions_are_those_of_the_file(spice):
    frames = read_spice(spice, elements=ELEMENTS, conformations=99)
    assert [f.info["conformation"] for f in frames] == list(range(5))
    for k, frame in enumerate(frames):
        expected = molecule("CH3CH2OH")
        expected.rattle(0.05, seed=k)
        np.testing.assert_allclose(frame.positions, expected.positions, atol=1e-6)
        assert (frame.numbers == expected.numbers).all() and not frame.pbc.any()


def test_choices(spice):
    everything = read_spice(spice, elements=[*ELEMENTS, "Br"], neutral=False)
    assert {f.info["system"]: f.info["charge"] for f in everything} == {
        "CCO": 0,
        "[NH4+]": 1,
        "cbr": 0,
    }
    ions = read_spice(spice, elements=ELEMENTS, subsets=[IONS], neutral=False, conformations=2)
    assert [f.info["system"] for f in ions] == ["[NH4+]"] * 2
    drawn = [
        read_spice(spice, elements=[*ELEMENTS, "Br"], neutral=False, molecules=1, seed=seed)
        for seed in range(20)
    ]
    assert all(len(frames) == 1 for frames in drawn)
    assert len({frames[0].info["system"] for frames in drawn}) == 3
    again = read_spice(spice, elements=[*ELEMENTS, "Br"], neutral=False, molecules=1, seed=7)
    assert again[0] == drawn[7][0] and again[0].info == drawn[7][0].info


def test_other_conformations_are_not_read(spice, monkeypatch):
    """Of the molecules that are left out nothing but numbers and strings is touched."""
    touched = []
    original = h5py.Dataset.__getitem__

    def watch(self, key, **options):
        touched.append(self.name)
        return original(self, key, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watch)
    read_spice(spice, elements=ELEMENTS)
    assert [name for name in touched if name.endswith("conformations")] == ["/CCO/conformations"]
    assert not [name for name in touched if "dft" in name]


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        (ETHANOL, 0),
        (AMMONIUM, 1),
        ("C[NH3+].[Cl-]", 0),
        ("[O-:1][P:2](=[O:3])([O-:4])[O-:5]", -3),
        ("[Ca++]", 2),
        ("[Mg+2:1]", 2),
        ("[S-2]", -2),
        ("C[N+](=O)[O-]", 0),
        ("F/C=C/[C@@H:3](C)[15NH3+:4]", 1),
    ],
)
def test_formal_charges(smiles, charge):
    assert formal_charge(smiles) == charge


def test_molecules_go_into_gas_systems(spice, tmp_path):
    frames = read_spice(spice, elements=[*ELEMENTS, "Br"], conformations=3)
    systems = gas(frames, name="spice", atoms_per_system=15)
    assert [a.info["system"] for a in systems] == ["spice-00", "spice-01", "spice-02"]
    assert sum(map(len, systems)) == sum(map(len, frames))
    write(tmp_path / "spice.extxyz", systems)
    back = read(tmp_path / "spice.extxyz", ":")
    assert [a.info["members"] for a in back] == [a.info["members"] for a in systems]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subsets": ["SPICE Water"]}, f"'SPICE Water' is not in .*: {DIPEPTIDES}, {IONS}"),
        ({"elements": ["Si"]}, "no molecule is left of 3, 3 with other elements skipped"),
        ({"elements": ["H", "Qq"]}, "'Qq' is no element"),
        ({"molecules": 0}, "molecules=0 must be at least 1"),
        ({"conformations": -1}, "conformations=-1 must be at least 1"),
    ],
)
def test_wrong_arguments_are_clear_errors(spice, options, message):
    with pytest.raises(UserError, match=message):
        read_spice(spice, **{"elements": ELEMENTS, **options})


@pytest.mark.parametrize("missing", ["atomic_numbers", "conformations", "smiles", "subset"])
def test_a_missing_dataset_is_named(spice, missing):
    with h5py.File(spice, "a") as file:
        del file["CCO"][missing]
    with pytest.raises(UserError, match=f"'/CCO' has no dataset '{missing}'"):
        read_spice(spice, elements=ELEMENTS)


def test_a_file_of_another_layout_is_a_clear_error(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["energies"] = np.zeros(3)
    with pytest.raises(UserError, match=r"'/energies' has no dataset .* not laid out like SPICE-2"):
        read_spice(tmp_path / "other.h5", elements=ELEMENTS)


def test_damaged_conformations_are_clear_errors(spice):
    with h5py.File(spice, "a") as file:
        file["CCO/conformations"].attrs["units"] = "angstrom"
    with pytest.raises(UserError, match="units 'angstrom', and only 'bohr'"):
        read_spice(spice, elements=ELEMENTS)
    with h5py.File(spice, "a") as file:
        del file["CCO/conformations"]
        file["CCO/conformations"] = np.zeros((2, 8, 3), np.float32)
        file["CCO/conformations"].attrs["units"] = "bohr"
    with pytest.raises(UserError, match=r"shape \(2, 8, 3\), not \(m, 9, 3\)"):
        read_spice(spice, elements=ELEMENTS)
    with h5py.File(spice, "a") as file:
        del file["CCO/conformations"]
        file["CCO/conformations"] = np.full((2, 9, 3), np.nan, np.float32)
        file["CCO/conformations"].attrs["units"] = "bohr"
    with pytest.raises(UserError, match="not finite"):
        read_spice(spice, elements=ELEMENTS)


def test_what_is_not_hdf5_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_spice(tmp_path / "none.hdf5", elements=ELEMENTS)
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(UserError, match="cannot be opened as HDF5"):
        read_spice(tmp_path / "text.hdf5", elements=ELEMENTS)


def test_a_missing_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'mts-driver\[general\]'"):
        read_spice(tmp_path / "any.hdf5", elements=ELEMENTS)
