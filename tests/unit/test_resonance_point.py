"""A point of the scan on the smallest molecules, where its numbers are known."""

from dataclasses import replace

import numpy as np
import pytest
from analytic import Analytic
from ase import Atoms
from ase.constraints import FixAtoms

from integrators.constraints import Distances
from mts_driver.thermostats import CUTOFF_PER_CM
from mts_driver.units import BOLTZMANN_EV_K
from mts_driver.validation.resonance.point import run_point
from mts_driver.validation.resonance.points import Point
from mts_driver.validation.resonance.row import heating_K

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


def measure(atoms, potential, point=POINT, *, held=None, replicas=1):
    return run_point(
        atoms,
        potential,
        potential,
        point,
        temperature_K=300.0,
        picoseconds=5.0,
        replicas=replicas,
        held=held,
        seed=4,
        report=lambda *_: None,
    )


def test_one_bond_varies_in_time_and_one_heavy_atom_is_hot_at_times():
    found = measure(HCL, bond())
    # one reading of three degrees of freedom in 600 is above five times the target
    assert not found.blown_up
    for temperature in (found.temperatures_K["H"], found.temperatures_K["heavy"]):
        assert abs(temperature.mean - 300) < 4 * temperature.stderr < 150
    expected = BOLTZMANN_EV_K * 300.0 / STIFF_EV_A2
    assert found.xh_variance.mean == pytest.approx(expected, rel=0.15)
    assert found.xh_mean.mean == pytest.approx(1.3, abs=0.01)


def test_a_molecule_of_hydrogen_has_no_heavy_atom_and_no_bond_to_one():
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 1.3]], cell=[9] * 3, pbc=True)
    found = measure(atoms, bond())
    assert "heavy" not in found.temperatures_K
    assert found.xh_variance is None and found.diffusion_cm2_s is None
    assert abs(found.temperatures_K["H"].mean - 300) < 4 * found.temperatures_K["H"].stderr


def test_a_held_atom_stays_and_does_not_count():
    atoms = HCL.copy()
    atoms.set_constraint(FixAtoms([1]))
    found = measure(atoms, bond())
    assert not found.blown_up and "heavy" not in found.temperatures_K
    assert found.diffusion_cm2_s is None
    assert abs(found.temperatures_K["H"].mean - 300) < 4 * found.temperatures_K["H"].stderr < 200
    expected = BOLTZMANN_EV_K * 300.0 / STIFF_EV_A2
    assert found.xh_variance.mean == pytest.approx(expected, rel=0.2)
    assert heating_K(atoms, POINT, 1.0) == pytest.approx(3.868 / 100, rel=1e-3)


def test_heating_goes_into_what_is_left():
    # 3.868 K for a meV/atom/ps at 1/ps and three degrees of freedom an atom, of which HCl has 1.5
    assert heating_K(HCL, POINT, 1.0) == pytest.approx(2 * 3.868 / 100, rel=1e-3)
    assert heating_K(Atoms("Cl"), POINT, 1.0) is None
    assert heating_K(HCL, POINT, None) is None
    masses = HCL.get_masses()
    more = Point(**{**vars(POINT), "hydrogen_friction_per_ps": 500.0})
    taken = 500.0 * 3 * masses[1] / masses.sum() + 100.0 * 3 * masses[0] / masses.sum()
    assert heating_K(HCL, more, 1.0) == pytest.approx(2 * 3 * 3.868 / taken, rel=1e-3)


def test_heating_under_coloured_noise_needs_what_friction_hydrogens_had():
    coloured = replace(POINT, friction_per_ps=1.0, hydrogen_friction_per_ps=1.0, high_pass=True)
    # without it that of slow motion, an upper bound of the heating
    assert heating_K(HCL, coloured, 1.0) == pytest.approx(2 * 3.868, rel=1e-3)
    found = heating_K(HCL, coloured, 1.0, friction_H_per_ps=13.5)
    assert found == pytest.approx(2 * 3.868 / 13.2, rel=0.03)


def molecules():
    """HCl so far apart that only bonds act."""
    atoms = Atoms()
    for k in range(30):
        atoms += Atoms("ClH", [[12.0 * k, 0, 0], [12.0 * k + 1.3, 0, 0]])
    atoms.cell, atoms.pbc = [360.0, 20.0, 20.0], True
    return atoms


def bonds():
    def energy(x):
        lengths = (x[..., 1::2, :] - x[..., ::2, :]).norm(dim=-1)
        return 0.5 * STIFF_EV_A2 * (lengths - 1.3).square().sum(-1)

    return Analytic(energy)


def test_held_bonds_do_not_vary_and_have_the_temperature_of_what_is_left():
    atoms, point = molecules(), replace(POINT, outer_fs=12.0, inner_fs=2.0, constrained=True)
    pairs = np.arange(60).reshape(-1, 2)
    found = measure(atoms, bonds(), point, held=Distances(pairs, np.full(30, 1.25)), replicas=2)
    assert not found.blown_up and found.xh_variance is None
    assert found.xh_mean.mean == pytest.approx(1.25, abs=1e-6)
    # the stretch is that of the hydrogen, but for the 1/36 of the chlorine
    assert found.degrees == pytest.approx({"H": 61, "heavy": 89, "all": 150}, abs=0.3)
    assert found.lost_degrees.sum() == pytest.approx(30)
    for temperature in (found.temperatures_K["H"], found.temperatures_K["heavy"]):
        assert abs(temperature.mean - 300) < 4 * temperature.stderr < 30
    assert found.vdos is not None and found.vdos.stretch_peak_cm1 is None
    assert found.diffusion_cm2_s.mean > 0 and found.diffusion_cm2_s.stderr > 0


def test_coloured_noise_keeps_the_temperature():
    point = replace(POINT, friction_per_ps=10.0, hydrogen_friction_per_ps=10.0, high_pass=True)
    found = measure(molecules(), bonds(), point, replicas=2)
    for temperature in (found.temperatures_K["H"], found.temperatures_K["heavy"]):
        assert abs(temperature.mean - 300) < 4 * temperature.stderr < 40
    assert found.xh_variance.mean == pytest.approx(BOLTZMANN_EV_K * 300.0 / STIFF_EV_A2, rel=0.1)
    assert found.high_pass_friction_H_per_ps is None


def test_vibrations_tell_what_friction_coloured_noise_would_have():
    point = replace(POINT, friction_per_ps=5.0, hydrogen_friction_per_ps=5.0)
    found = measure(molecules(), bonds(), point, replicas=2)
    # two thirds of the kinetic energy turn slowly, the last is the stretch at 2980/cm
    stretch = 50 * 2980**4 / (2980**4 + CUTOFF_PER_CM**4)
    assert found.high_pass_friction_H_per_ps == pytest.approx(5 + stretch / 3, rel=0.15)


def test_variance_is_over_bonds_and_time():
    from mts_driver.validation.resonance.point import _variance

    lengths = np.random.default_rng(2).normal(1.0, 0.03, size=(500, 3))
    found = _variance(list(lengths.mean(1)), list((lengths**2).mean(1)))
    assert found.mean == pytest.approx(lengths[100:].var(), rel=1e-9)
    assert _variance([], []) is None
