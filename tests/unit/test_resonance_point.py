"""A point of the scan on the smallest molecules, where its numbers are known."""

import numpy as np
import pytest
from analytic import Analytic
from ase import Atoms
from ase.constraints import FixAtoms

from mts_driver.units import BOLTZMANN_EV_K
from mts_driver.validation.resonance.judge import faults
from mts_driver.validation.resonance.point import Point, run_point
from mts_driver.validation.resonance.scan import ScanSettings, _heating_K, scan

STIFF_EV_A2 = 32.0
HCL = Atoms("HCl", [[0, 0, 0], [0, 0, 1.3]])
POINT = Point(
    outer_fs=4.0,
    inner_fs=1.0,
    hydrogen_mass_Da=0.0,
    friction_per_ps=100.0,
    hydrogen_friction_per_ps=100.0,
)


def bond():
    return Analytic(
        lambda x: 0.5 * STIFF_EV_A2 * ((x[..., 0, :] - x[..., 1, :]).norm(dim=-1) - 1.3).square()
    )


def measure(atoms, potential):
    return run_point(
        atoms,
        potential,
        potential,
        POINT,
        temperature_K=300.0,
        picoseconds=5.0,
        replicas=1,
        seed=4,
        report=lambda *_: None,
    )


def test_one_bond_varies_in_time_and_one_heavy_atom_is_hot_at_times():
    found = measure(HCL, bond())
    # one reading of three degrees of freedom in 600 is above five times the target
    assert not found.blown_up
    for temperature in (found.T_H, found.T_heavy):
        assert abs(temperature.mean - 300) < 4 * temperature.stderr < 150
    expected = BOLTZMANN_EV_K * 300.0 / STIFF_EV_A2
    assert found.xh_variance.mean == pytest.approx(expected, rel=0.15)
    assert found.xh_mean.mean == pytest.approx(1.3, abs=0.01)


def test_a_molecule_of_hydrogen_has_no_heavy_atom_and_no_bond_to_one():
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 1.3]], cell=[9] * 3, pbc=True)
    found = measure(atoms, bond())
    assert found.T_heavy is None and found.xh_variance is None and found.diffusion_cm2_s is None
    assert abs(found.T_H.mean - 300) < 4 * found.T_H.stderr


def test_a_held_atom_stays_and_does_not_count():
    atoms = HCL.copy()
    atoms.set_constraint(FixAtoms([1]))
    found = measure(atoms, bond())
    assert not found.blown_up and found.T_heavy is None and found.diffusion_cm2_s is None
    assert abs(found.T_H.mean - 300) < 4 * found.T_H.stderr < 200
    expected = BOLTZMANN_EV_K * 300.0 / STIFF_EV_A2
    assert found.xh_variance.mean == pytest.approx(expected, rel=0.2)
    assert _heating_K(atoms, POINT, 1.0) == pytest.approx(3.868 / 100, rel=1e-3)


def test_heating_goes_into_what_is_left():
    # 3.868 K for a meV/atom/ps at 1/ps and three degrees of freedom an atom, of which HCl has 1.5
    assert _heating_K(HCL, POINT, 1.0) == pytest.approx(2 * 3.868 / 100, rel=1e-3)
    assert _heating_K(Atoms("Cl"), POINT, 1.0) is None
    assert _heating_K(HCL, POINT, None) is None
    masses = HCL.get_masses()
    more = Point(**{**vars(POINT), "hydrogen_friction_per_ps": 500.0})
    taken = 500.0 * 3 * masses[1] / masses.sum() + 100.0 * 3 * masses[0] / masses.sum()
    assert _heating_K(HCL, more, 1.0) == pytest.approx(2 * 3 * 3.868 / taken, rel=1e-3)


def test_a_scan_of_a_single_atom_is_safe_and_leaves_heating_out(tmp_path):
    settings = ScanSettings(
        teacher="t",
        student="s",
        outer_fs=(2.0,),
        inner_fs=1.0,
        hydrogen_mass_Da=(0.0,),
        friction_per_ps=1.0,
        hydrogen_friction_per_ps=(),
        temperature_K=300.0,
        picoseconds=0.1,
        equilibrate_ps=0.0,
        replicas=1,
        seed=1,
    )
    free = Analytic(lambda x: 0 * x.sum((-2, -1)))
    found = scan(
        Atoms("Cl"), free, free, settings, state_file=tmp_path / "s", report=lambda *_: None
    )
    (row,) = found["scan"]
    assert row["predicted_heating_K"] is None and row["drift_meV_atom_ps"] == 0.0
    assert faults(row, 300.0) == [] and found["recommended_outer_fs"] == 2.0


def test_variance_is_over_bonds_and_time():
    from mts_driver.validation.resonance.point import _variance

    lengths = np.random.default_rng(2).normal(1.0, 0.03, size=(500, 3))
    found = _variance(list(lengths.mean(1)), list((lengths**2).mean(1)))
    assert found.mean == pytest.approx(lengths[100:].var(), rel=1e-9)
    assert _variance([], []) is None
