"""Droplets: the solute of a box with what is next to it."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mts_driver.distillation.sampling.droplets import SHELL_A, droplets
from mts_driver.structures.bonds import molecules
from mts_driver.structures.files import read_systems


def test_a_solute_keeps_its_surroundings(structures):
    (atoms,) = read_systems(structures / "ethanol_water200.extxyz")
    # so that the solute is cut by the border of the cell
    atoms.positions += 0.5 * atoms.cell.lengths() - atoms.positions[0]
    atoms.positions += atoms.cell.lengths() / 2
    atoms.wrap()
    (drop,) = droplets([atoms])
    assert not drop.pbc.any() and drop.info["system"] == "ethanol_water200-droplet"
    sizes = np.bincount(molecules(drop))
    assert sorted(set(sizes.tolist())) == [3, 9] and (sizes == 9).sum() == 1
    ours = np.flatnonzero(molecules(drop) == np.argmax(sizes))
    theirs = np.flatnonzero(molecules(atoms) == np.argmax(np.bincount(molecules(atoms))))
    apart = drop.get_all_distances()[ours]
    whole = atoms.get_all_distances(mic=True)[theirs]
    near = [np.sort(d[d < SHELL_A]) for d in (apart, whole)]
    np.testing.assert_allclose(near[0], near[1], atol=1e-6)
    weights = np.zeros(len(drop))
    weights[ours] = (600 / 9) ** 0.5
    np.testing.assert_allclose(drop.get_array("force_weight"), weights)
    assert not droplets([drop])  # most of it would be taken


def test_one_of_each_kind_and_its_charge():
    atoms = Atoms(cell=[60.0, 30.0, 30.0], pbc=True)
    for x in range(0, 60, 3):
        for y in range(0, 30, 3):
            water = molecule("H2O")
            water.translate([x, y, 0.0])
            atoms += water
    for x, solute in ((5.0, "CH4"), (30.0, "CH4"), (45.0, "Cl")):
        found = Atoms("Cl") if solute == "Cl" else molecule(solute)
        found.translate([x, 10.0, 3.2])
        atoms += found
    atoms.info["system"] = "brine"
    first, second = droplets([atoms])
    assert (first.info["system"], second.info["system"]) == ("brine-droplet", "brine-droplet-2")
    assert "charge" not in first.info and second.info["charge"] == -1
    assert first.get_chemical_symbols().count("C") == 1 and "Cl" in second.get_chemical_symbols()


@pytest.mark.parametrize("name", ["water64_packmol", "chignolin_1uao_water_npt"])
def test_no_droplets_of_water_and_of_proteins(structures, name):
    assert not droplets(read_systems(structures / f"{name}.extxyz"))
