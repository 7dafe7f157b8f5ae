"""The cases of ../shared/cases about what a structure says, with the values that stand there."""

import re

import numpy as np
import pytest
from ase import units
from ase.io import read
from running import here, mts, properties

AS_IT_IS = ("--equilibrate-ps", 0, "--no-minimise", "--quiet")
LJ = "ase:ase.calculators.lj:LennardJones?epsilon=0.01"


def prepared(folder, structure, *options):
    done = here("prepare", structure, "-o", folder, *AS_IT_IS, *options)
    assert done.returncode == 0, done.stderr
    return folder / "input.xml"


def ran(input_xml):
    done = mts("run", input_xml, "--baseline-steps", 0, "--quiet")
    assert done.returncode == 0, done.stderr
    return np.atleast_2d(properties(input_xml.parent))


def test_charge_in_header(cases, tmp_path):
    """An ion under i-PI: -824.1218 eV, where a neutral system has -823.2567 eV."""
    options = ("--student", "none", "--outer-fs", 1, "--hydrogen-mass-Da", 0)
    structure = cases / "charge_in_header/ion.extxyz"
    file = prepared(tmp_path / "run", structure, *options, "--steps", 1, "--stride", 1)
    assert "model: so3lr?charge=-1," in file.read_text()
    assert read(tmp_path / "run/start.extxyz").info["charge"] == -1
    assert ran(file)[0, 3] == pytest.approx(-824.1218, abs=2e-4)
    # a model without a place for a charge
    done = here("prepare", structure, "-o", tmp_path / "lj", "--teacher", LJ, *options)
    assert done.returncode == 2 and "is needed for a system of charge -1" in done.stderr


@pytest.mark.parametrize(
    ("options", "masses"),
    [
        (("--beads", 4, "--outer-fs", 0.5), (15.999, 2.014)),
        (("--hydrogen-mass-Da", 0, "--outer-fs", 0.5), (15.999, 2.014)),
        (("--hydrogen-mass-Da", 4, "--outer-fs", 1), (15.999 - 2 * (4 - 2.014), 4.0)),
    ],
)
def test_heavy_water(cases, tmp_path, options, masses):
    structure = cases / "heavy_water/d2o.extxyz"
    prepared(tmp_path / "run", structure, "--teacher", LJ, "--student", "none", *options)
    found = read(tmp_path / "run/start.extxyz").get_masses()
    np.testing.assert_allclose(found, [masses[0], masses[1], masses[1]], atol=1e-6)


def test_left_handed_cell(cases, tmp_path):
    """Volume +612.0 Å³, pressure -6543 bar and a conserved energy, as of the right-handed cell."""
    options = ("--student", "none", "--outer-fs", 0.5, "--hydrogen-mass-Da", 0, "--steps", 2)
    structure = cases / "left_handed_cell/left.extxyz"
    file = prepared(tmp_path / "run", structure, *options, "--stride", 1, "--pressure-bar", 1)
    found = ran(file)
    assert np.isfinite(found).all()
    assert found[0, 6] == pytest.approx(612.0, abs=0.1)
    assert found[0, 7] == pytest.approx(-6543, abs=1)


def test_frozen_atoms(cases, tmp_path):
    """The first molecule stays where it is, through the equilibration and under i-PI."""
    structure = cases / "frozen_atoms/fixed.extxyz"
    done = here(
        *("prepare", structure, "-o", tmp_path / "run", "--student", "water", "--quiet"),
        *("--steps", 3, "--stride", 1, "--equilibrate-ps", 0.02),
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "run/input.xml").read_text()
    assert re.search(r"<fixatoms> \[ 0, 1, 2 \] </fixatoms>", text)
    before, start = read(structure), read(tmp_path / "run/start.extxyz")
    np.testing.assert_allclose(start.positions[:3], before.positions[:3], atol=1e-8)
    assert np.abs(start.positions[3:] - before.positions[3:]).max() > 0.001
    ran(tmp_path / "run/input.xml")
    frames = read(tmp_path / "run/simulation.pos_0.xyz", index=":", format="xyz")
    moved = np.abs(frames[-1].positions - frames[0].positions).max(axis=1)
    assert (moved[:3] == 0).all() and moved[3:].max() > 0.001


def test_isolated_molecule(cases, tmp_path):
    """Under i-PI, which has no isolated systems: -1488.17240 eV, and not -1488.18297 in a cell."""
    structure = cases / "isolated_molecule_served/eth.extxyz"
    options = ("--student", "none", "--outer-fs", 1, "--hydrogen-mass-Da", 0)
    file = prepared(tmp_path / "run", structure, *options, "--steps", 1, "--stride", 1)
    assert ran(file)[0, 3] == pytest.approx(-1488.17240, abs=2e-4)


def test_velocities_that_are_kept(cases, tmp_path):
    """Two molecules that fly apart do so from the first step on."""
    atoms = read(cases / "two_systems_two_orders/a.extxyz")
    velocities = np.zeros((len(atoms), 3))
    velocities[:, 2] = 1e-3 * np.sign(atoms.positions[:, 2] - atoms.positions[:, 2].mean())
    atoms.set_velocities(velocities / units.fs)
    atoms.write(tmp_path / "moving.traj")
    options = ("--student", "none", "--outer-fs", 0.5, "--hydrogen-mass-Da", 0)
    options += ("--steps", 1, "--stride", 1, "--friction-per-ps", 1e-9)
    file = prepared(tmp_path / "run", tmp_path / "moving.traj", *options, "--velocities", "keep")
    found = ran(file)
    # kinetic energy of the start; the centre of mass is removed by i-PI
    masses = atoms.get_masses()
    mean = (masses[:, None] * velocities).sum(0) / masses.sum()
    kinetic = 0.5 * (masses * ((velocities - mean) ** 2).sum(1)).sum() / units.fs**2
    assert found[0, 4] == pytest.approx(kinetic, rel=1e-3)
