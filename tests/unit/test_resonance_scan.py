"""Which points a scan has, what it keeps, and what it recommends."""

import inspect
import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from analytic import Analytic
from ase import Atoms
from typer.main import get_command

import mts_driver
from mts_driver.cli.main import application
from mts_driver.errors import UserError
from mts_driver.validation.resonance.diffusion import diffusion_cm2_s
from mts_driver.validation.resonance.judge import USUAL, faults, recommend
from mts_driver.validation.resonance.points import ScanSettings
from mts_driver.validation.resonance.resonance import _can_hold
from mts_driver.validation.resonance.scan import scan

SETTINGS = ScanSettings(
    teacher="t",
    student="s",
    outer_fs=(6.0, 4.0, 5.0),
    inner_fs=1.0,
    hydrogen_mass_Da=(0.0, 4.0),
    friction_per_ps=1.0,
    hydrogen_friction_per_ps=(20.0,),
    high_pass=True,
    constrain_hydrogens=True,
    rigid_water=False,
    constrained_inner_fs=2.0,
    temperature_K=300.0,
    picoseconds=0.1,
    equilibrate_ps=0.0,
    replicas=1,
    seed=1,
)
NONE = {"high_pass": False, "constrain_hydrogens": False}
SAFE = {
    **{"friction": 1.0, "hmr": 4.0, "high_pass": False, "constrained": False},
    **{"rigid_water": False, "safe": True},
}
HELD = "--outer-fs 12 --inner-fs 2 --hydrogen-mass-Da 4 --constrain-hydrogens"


def row(outer_fs, inner_fs=1.0, **changes):
    return SAFE | {"outer_fs": outer_fs, "inner_fs": inner_fs} | changes


def test_points_are_of_every_setup_and_held_bonds_of_whole_inner_steps():
    reference, *points = SETTINGS.points()
    assert (reference.outer_fs, reference.inner_fs, reference.hydrogen_mass_Da) == (1.0, 1.0, 0.0)
    # 2 fs with natural hydrogens blow up, and nothing could be compared with them
    reference, *_ = replace(SETTINGS, inner_fs=2.0).points()
    assert (reference.outer_fs, reference.inner_fs) == (1.0, 1.0)
    found = {}
    for point in points:
        label = point.setup.label(1.0)
        found.setdefault(label, []).append((point.outer_fs, point.inner_fs))
    flexible = [(4.0, 1.0), (5.0, 1.0), (6.0, 1.0)]
    assert found == {
        "natural masses": flexible,
        "H of 4 Da": flexible,
        "H of 4 Da, 20/ps on H": flexible,
        "H of 4 Da, high-pass noise": flexible,
        "H of 4 Da, bonds held": [(4.0, 2.0), (6.0, 2.0)],
        "H of 4 Da, bonds held, high-pass noise": [(4.0, 2.0), (6.0, 2.0)],
    }
    rigid = [p for p in replace(SETTINGS, rigid_water=True).points() if p.constrained]
    assert {p.setup.label(1.0) for p in rigid} == {
        "H of 4 Da, rigid water",
        "H of 4 Da, rigid water, high-pass noise",
    }
    few = list(replace(SETTINGS, outer_fs=(1.0, 5.0), **NONE).points())
    assert not any(point.high_pass or point.constrained for point in few)
    assert replace(SETTINGS, outer_fs=(1.0, 5.0)).constrained_outer_fs == []


def test_the_inner_step_of_held_bonds_is_a_time():
    with pytest.raises(UserError, match="constrained_inner_fs=-2"):
        replace(SETTINGS, constrained_inner_fs=-2.0)


@pytest.mark.parametrize(
    ("rows", "dynamics", "sampling"),
    [
        (
            [row(6.0), row(8.0, safe=False), row(10.0, friction=20.0)],
            "--outer-fs 6 --inner-fs 1 --hydrogen-mass-Da 4",
            "--outer-fs 10 --inner-fs 1 --hydrogen-mass-Da 4 --hydrogen-friction-per-ps 20",
        ),
        (
            [row(6.0), row(10.0, high_pass=True), row(12.0, 2.0, constrained=True)],
            f"{HELD} --thermostat langevin",
            f"{HELD} --thermostat langevin",
        ),
        (
            [
                row(12.0, 2.0, constrained=True, safe=False),
                row(12.0, 2.0, constrained=True, high_pass=True),
            ],
            f"{HELD} --thermostat high-pass",
            f"{HELD} --thermostat high-pass",
        ),
        (
            [row(5.0, constrained=True, rigid_water=True)],
            "--outer-fs 5 --inner-fs 1 --hydrogen-mass-Da 4 --rigid-water",
            "--outer-fs 5 --inner-fs 1 --hydrogen-mass-Da 4 --rigid-water",
        ),
        # of what reaches the same step, the plainest
        (
            [row(4.0, hmr=4.0), row(4.0, hmr=0.0), row(4.0, high_pass=True)],
            "--outer-fs 4 --inner-fs 1 --hydrogen-mass-Da 0",
            "--outer-fs 4 --inner-fs 1 --hydrogen-mass-Da 0",
        ),
        (
            [row(4.0, high_pass=True), row(4.0, 2.0, constrained=True), row(4.0, friction=20.0)],
            "--outer-fs 4 --inner-fs 1 --hydrogen-mass-Da 4 --thermostat high-pass",
            "--outer-fs 4 --inner-fs 1 --hydrogen-mass-Da 4 --thermostat high-pass",
        ),
        # prepare would take coloured noise by itself
        (
            [row(8.0, safe=False, high_pass=True), row(8.0)],
            "--outer-fs 8 --inner-fs 1 --hydrogen-mass-Da 4 --thermostat langevin",
            "--outer-fs 8 --inner-fs 1 --hydrogen-mass-Da 4 --thermostat langevin",
        ),
        ([row(6.0, safe=False)], None, None),
    ],
)
def test_the_recommendation_is_what_prepare_takes(rows, dynamics, sampling):
    found = recommend(rows, 1.0, 300.0)
    options = {name: one and one["options"] for name, one in found["recommended"].items()}
    assert options == {"dynamics": dynamics, "sampling": sampling}
    for name, key in (
        ("dynamics", "recommended_outer_fs"),
        ("sampling", "recommended_for_sampling_outer_fs"),
    ):
        one = found["recommended"][name]
        assert found[key] == (one and one["outer_fs"])
        if one:
            prepare = get_command(application()).commands["prepare"]
            words = shlex.split(one["options"])
            given = prepare.make_context("prepare", ["x", "-o", "y", *words]).params
            assert {option: given[option] for option in one["arguments"]} == one["arguments"]
            assert set(one["arguments"]) <= set(inspect.signature(mts_driver.prepare).parameters)


def test_friction_and_temperature_are_given_where_prepare_has_others():
    parameters = inspect.signature(mts_driver.prepare).parameters
    assert {name: parameters[name].default for name in USUAL} == USUAL
    (one,) = {
        found["options"]
        for found in recommend([row(4.5, 4.5 / 4, friction=2.0)], 2.0, 310.0)[
            "recommended"
        ].values()
    }
    assert one == (
        "--outer-fs 4.5 --inner-fs 1.125 --hydrogen-mass-Da 4 --friction-per-ps 2 "
        "--temperature-K 310"
    )


def test_bonds_are_held_where_they_can_be():
    told = []
    water = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]])
    lonely = Atoms("OH", [[0, 0, 0], [3.0, 0, 0]])
    assert _can_hold(water, None, told.append) and _can_hold(water, True, told.append)
    assert not _can_hold(water, False, told.append)
    assert not _can_hold(Atoms("N"), None, told.append) and not told
    assert not _can_hold(lonely, None, told.append)
    assert "no heavy atom within 1.9" in told[0]
    for atoms in (Atoms("N"), lonely):
        with pytest.raises(UserError):
            _can_hold(atoms, True, told.append)


def test_a_scan_of_a_single_atom_is_safe_and_leaves_heating_out(tmp_path):
    alone = {"outer_fs": (2.0,), "hydrogen_mass_Da": (0.0,), "hydrogen_friction_per_ps": ()}
    settings = replace(SETTINGS, **alone, **NONE)
    free = Analytic(lambda x: 0 * x.sum((-2, -1)))
    found = scan(
        Atoms("Cl"), free, free, settings, state_file=tmp_path / "s", report=lambda *_: None
    )
    (only,) = found["scan"]
    assert only["predicted_heating_K"] is None and only["drift_meV_atom_ps"] == 0.0
    assert faults(only, 300.0) == [] and found["recommended_outer_fs"] == 2.0
    assert found["bond_lengths_A"] is None


def test_lengths_of_held_bonds_are_measured_once(tmp_path):
    def energy(x):
        return 16 * ((x[..., 0, :] - x[..., 1, :]).norm(dim=-1) - 1.3).square()

    few = {"outer_fs": (4.0,), "hydrogen_friction_per_ps": (), "hydrogen_mass_Da": (0.0,)}
    settings = replace(SETTINGS, **few)
    molecule, file = Atoms("ClH", [[0, 0, 0], [0, 0, 1.3]]), tmp_path / "scan.part"

    def go():
        spring = Analytic(energy)
        return scan(molecule, spring, spring, settings, state_file=file, report=lambda *_: None)

    first = go()
    assert first["bond_lengths_A"]["Cl(H)-H"] == pytest.approx(1.3, abs=0.02)
    kept = json.loads(file.read_text())
    # the last row is gone, and lengths are others so that their reuse shows
    kept["rows"].pop()
    kept["lengths_A"] = {"Cl(H)-H": 1.2}
    file.write_text(json.dumps(kept))
    again = go()
    held = again["scan"][-1]
    assert held["constrained"] and held["xh_mean"] == pytest.approx(1.2)
    assert held["xh_var_ratio"] is None and again["bond_lengths_A"] == {"Cl(H)-H": 1.2}
    # coloured noise has the drift of the same masses
    white, coloured = again["scan"][:2]
    assert coloured["high_pass"] and coloured["drift_meV_atom_ps"] == white["drift_meV_atom_ps"]


@pytest.mark.parametrize("replicas", [(), (8,)])
def test_diffusion_of_a_random_walk(replicas):
    rng = np.random.default_rng(1)
    walk = rng.normal(0, 0.1, (3000, *replicas, 50, 3)).cumsum(0)  # <dx²> = 0.01 Å² in 0.01 ps
    found = diffusion_cm2_s(walk, 0.01)
    assert abs(found.mean - 0.5e-4) < 4 * found.stderr < 0.2e-4
    assert diffusion_cm2_s(walk[:100], 0.01) is None
