"""What the benchmarks are made of: boxes, rounds, the count of the arithmetic, calculators."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from mts_driver.bench import codes_runs, peer_openmm, peer_runs, speedup
from mts_driver.bench.bare import _bath
from mts_driver.bench.boxes import back_and_forth, box_of, write_trajectory
from mts_driver.bench.calls import forces_of, time_calls
from mts_driver.bench.codes_averages import Averages, Seen, differences
from mts_driver.bench.eager import EagerStudent
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.held_start import HeldStart
from mts_driver.bench.ipi_runs import Variant
from mts_driver.bench.kernels import exponents
from mts_driver.bench.roofline import neighbors_within, student_work
from mts_driver.bench.rounds import in_turn, speed, spread
from mts_driver.bench.scaling import _verdict
from mts_driver.bench.settings import BenchSettings
from mts_driver.bench.speedup import _ceiling, variants
from mts_driver.cli.bench import bench
from mts_driver.errors import UserError
from mts_driver.interfaces.ase import PotentialCalculator
from mts_driver.potentials import load_potential
from mts_driver.potentials.student.model import StudentConfig
from mts_driver.structures.tensors import cell_of
from mts_driver.thermostats import high_pass_noise
from mts_driver.units import BOLTZMANN_EV_K

WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"
PAIR = {"teacher": "student:general", "student": "student:water"}


@pytest.fixture(scope="module")
def water():
    return read(WATER64)


def settings(**options):
    chosen = {"rounds": 1, "seconds": 0.1, "teacher": "student:general"} | options
    return BenchSettings(structures=(read(WATER64),), students=("student:water",), **chosen)


def test_boxes_come_near_to_the_size_and_to_a_cube(water):
    small = water[:6]
    small.cell, small.pbc = [5.0, 5.0, 10.0], True
    box = box_of([water, small], 48)
    assert len(box) == 48
    assert box.cell.lengths() == pytest.approx([10, 10, 20])
    assert 0 < np.abs(box.positions - small.repeat((2, 2, 2)).positions).max() < 0.2
    assert len(box_of([water, small], 1296)) == 1296
    assert len(box_of([water], 1500)) == 1536
    small.pbc = False
    with pytest.raises(UserError, match="without a cell"):
        box_of([small], 6)


def test_a_trajectory_goes_back_and_forth():
    frames = back_and_forth(4)
    assert [next(frames) for _ in range(10)] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    still = back_and_forth(1)
    assert [next(still) for _ in range(3)] == [0, 0, 0]


def test_everything_runs_in_turn_and_what_fails_is_left_out():
    order = []

    def run(name, per_step_s):
        def take(steps):
            order.append(name)
            return {"steps": steps, "wall_s": per_step_s * steps}

        return take

    def fail(steps):
        order.append("c")
        raise UserError("no such engine")

    todo = {"a": run("a", 0.1), "c": fail, "b": run("b", 1.0)}
    runs, left_out = in_turn(todo, settings(rounds=2, seconds=5.0))
    assert order == ["a", "c", "b", "a", "b", "a", "b"]
    assert [run["steps"] for run in runs["a"]] == [50, 50]
    assert [run["steps"] for run in runs["b"]] == [5, 5]
    assert (runs["c"], left_out) == ([], {"c": "no such engine"})
    assert speed(runs["b"], 2.0)["s_per_ps"] == pytest.approx(500.0)
    assert speed([], 2.0)["ns_per_day"] is None
    assert spread("x", [3.0, 1.0, 2.5]) == {"x": 2.5, "x_min": 1.0, "x_max": 3.0}
    with pytest.raises(UserError, match="no such engine"):
        in_turn({"c": fail}, settings())


def test_arithmetic_of_a_student_as_counted_by_hand():
    """One channel and one hidden unit more than nothing, so that every term can be written out."""
    one = StudentConfig(elements=("H", "O"), channels=2, messages=0, hidden=3)
    sums = 10 * 2 * (6 + 20 + 10 + 18 + 2 + 24)  # 10 neighbours, 2 channels
    invariants = 4 * 2 * 3 * (3 * 5 + 3 * 12 + 15 + 3 * 5 + 7 * 10)  # 4 atoms, forward and twice
    layers = 4 * (2 * (20 * 3 + 3 * 3) * 2 + 2 * 3)  # 20 inputs, 3 hidden units, 1 energy
    work = student_work(one, atoms=4, neighbors=10)
    assert work.flops == sums + invariants + layers
    # pairs: written once, read forward and backward; 70 numbers of 4 bytes an atom and channel
    assert work.bytes == 10 * 40 * 3 + 4 * 2 * 70 * 4

    two = StudentConfig(elements=("H", "O"), channels=2, messages=1, hidden=3)
    more = student_work(two, atoms=4, neighbors=10)
    second = 10 * (80 + 5) + 4 * 3 * 151 + 4 * 2 * (10 * 3 + 3 * 1) * 2
    assert more.flops - work.flops == second
    assert more.bytes == 10 * 40 * 5 + 4 * 3 * 70 * 4

    direct = StudentConfig(elements=("H", "O"), channels=2, messages=0, hidden=3, direct=True)
    assert student_work(direct, atoms=4, neighbors=10).flops == (
        10 * 2 * 26 + 4 * 2 * (151 + 27) + 4 * (2 * (20 * 3 + 3 * 3) + 2 * 3 * 4)
    )


def test_neighbors_are_counted_from_both_sides():
    line = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    assert neighbors_within(line, np.zeros((3, 3)), 1.5) == 4


def test_scaling_is_the_slope():
    rows = [{"model": "a", "atoms": n, "ms": 0.3 * n**1.5} for n in (100, 300, 900)]
    rows += [{"model": "b", "atoms": 100, "ms": 1.0}, {"model": "b", "atoms": 300, "ms": None}]
    assert exponents(rows) == {"a": pytest.approx(1.5)}


def test_the_ceiling_is_what_free_overhead_would_allow():
    chosen = settings(outer_fs=(3.5,), inner_fs=1.75, friction_outer_fs=(7.0,), mode="shm")
    found = {v.label: v for v in variants(chosen)}
    assert list(found) == [
        "single step, 1 fs",
        "single step, 2 fs, HMR",
        "single step, 4 fs, HMR, held bonds",
        "MTS 3.5/1.75 fs, HMR",
        "MTS 7/1.75 fs, HMR, γ_H 20/ps",
        "MTS 3.5/1.75 fs, HMR, in one process",
    ]
    assert [v.mode for v in found.values()] == ["unix"] * 3 + ["shm", "shm", "none"]
    assert not any(v.high_pass for v in found.values())
    assert found["MTS 7/1.75 fs, HMR, γ_H 20/ps"].protocol(1).n_inner == 4
    mts = found["MTS 3.5/1.75 fs, HMR"]
    assert _ceiling(mts, {"student_ms": 1.0, "teacher_ms": 20.0}) == pytest.approx(3.5 / 1.1)
    assert _ceiling(found["single step, 1 fs"], {"student_ms": None, "teacher_ms": 20.0}) is None
    with pytest.raises(UserError, match="no multiple"):
        variants(settings(outer_fs=(5.0,), inner_fs=2.0))


def test_variants_have_the_noise_and_the_bonds_that_prepare_would_give_them():
    asked = settings(**speedup.DEFAULTS | {"rigid_outer_fs": (20.0,)})
    found = {v.label: v for v in variants(asked)}
    assert list(found) == [
        "single step, 1 fs",
        "single step, 2 fs, HMR",
        "single step, 4 fs, HMR, held bonds",
        "MTS 6/1 fs, HMR",
        "MTS 10/1 fs, HMR, high-pass noise",
        "MTS 12/2 fs, HMR, high-pass noise, held bonds",
        "MTS 20/4 fs, HMR, high-pass noise, rigid water",
        "MTS 10/1 fs, HMR, high-pass noise, in one process",
    ]
    for label, variant in found.items():
        holds = "held" in label or "rigid" in label
        assert variant.constrain == variant.protocol(1).constrained == holds
        assert variant.rigid_water == ("rigid" in label)
        assert variant.high_pass == variant.protocol(1).high_pass == ("high-pass" in label)
        assert (variant.hydrogen_mass == 4.0) == ("HMR" in label)
    chosen = settings(outer_fs=(8.0,), friction_outer_fs=(8.0,), constrained_outer_fs=(9.0, 1.0))
    more = {v.label: v for v in variants(chosen)}
    assert more["MTS 8/1 fs, HMR, high-pass noise"].hydrogen_friction_per_ps is None
    assert not more["MTS 8/1 fs, HMR, γ_H 20/ps"].high_pass
    # an outer step of whole inner ones, near 2 fs
    held = {"MTS 9/2.25 fs, HMR, high-pass noise, held bonds", "MTS 1/1 fs, HMR, held bonds"}
    assert held < set(more)


def test_everything_is_compared_with_three_kinds_of_single_steps(monkeypatch):
    chosen = settings(**speedup.DEFAULTS)
    seconds = [100.0, 50.0, 25.0, 20.0, 12.5, 10.0, None]

    def time_variants(todo, _):
        models = {"teacher_ms": 100.0, "student_ms": 1.0, "overhead_fraction": 0.0}
        return [
            {"variant": variant.label, "s_per_ps": s, **models}
            for variant, s in zip(todo, seconds, strict=True)
        ], []

    monkeypatch.setattr(speedup, "time_variants", time_variants)
    rows = speedup.measure(chosen).rows
    shown = [key for key, _ in speedup.COLUMNS.values()]
    for name, single in zip(("1 fs", "2 fs HMR", "4 fs held"), rows, strict=False):
        assert {f"speedup vs {name}", f"ceiling vs {name}"} < set(shown)
        assert single[f"speedup vs {name}"] == 1.0 and single[f"ceiling vs {name}"] is None
        assert rows[5][f"speedup vs {name}"] == single["s_per_ps"] / 10.0
        assert rows[6][f"speedup vs {name}"] is None
    ceilings = [rows[5][f"ceiling vs {name}"] for name in ("1 fs", "2 fs HMR", "4 fs held")]
    assert ceilings == pytest.approx([12 / 1.06, 6 / 1.06, 3 / 1.06])


def test_in_one_process_there_is_the_same_noise(water):
    variant = Variant(label="", **PAIR, outer_fs=6.0, inner_fs=1.0)
    assert _bath(water, replace(variant, high_pass=True)).coloured == high_pass_noise(1.0)
    friction = _bath(water, replace(variant, hydrogen_friction_per_ps=20.0)).friction
    np.testing.assert_allclose(friction, np.where(water.numbers == 1, 0.02, 0.001))
    np.testing.assert_allclose(_bath(water, variant).friction, np.full(192, 0.001))


def test_without_hydrogens_no_bond_can_be_held():
    oxygen = read(WATER64)
    oxygen = oxygen[oxygen.numbers == 8]
    chosen = BenchSettings(structures=(oxygen,), teacher="so3lr", students=("student:water",))
    with pytest.raises(UserError, match="there is no hydrogen"):
        _ = HeldStart(chosen, hydrogen_mass_Da=4.0).atoms


def test_plain_torch_is_the_fused_student(water):
    x, cell = torch.tensor(water.positions), cell_of(water)
    numbers = water.numbers.tolist()
    eager, fused = EagerStudent("water", numbers), load_potential("student:water", numbers)
    one, other = eager(x, cell), fused(x, cell)
    torch.testing.assert_close(one.forces.double(), other.forces.double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(one.virial.double(), other.virial.double(), atol=1e-2, rtol=1e-4)


def test_calls_are_timed_and_their_memory_measured(tmp_path, water):
    file = tmp_path / "frames.npz"
    write_trajectory(file, water, "student:water", frames=3)
    frames = np.load(file)["frames"]
    assert frames.shape == (3, 192, 3)
    assert 0.01 < np.abs(np.diff(frames, axis=0)).max() < 0.3
    options = {"model": "student:water", "trajectory": str(file), "seconds": 0.05, "beads": 2}
    found = call_fresh(time_calls, threads=1, batched=False, **options)
    assert set(found) == {"ms", "calls", "peak_MB"}
    assert 3 <= found["calls"] <= 300
    assert 0 < found["ms"] < 1000


def test_a_process_that_fails_says_why():
    with pytest.raises(UserError, match="neither a file nor a packaged student"):
        call_fresh(
            forces_of, threads=1, model="student:nowhere", structure=str(WATER64), device="cpu"
        )


def test_calculator_gives_what_the_potential_gives(water):
    atoms = water.copy()
    potential = load_potential("student:water", atoms.numbers.tolist())
    atoms.calc = PotentialCalculator(potential)
    found = potential(torch.tensor(atoms.positions), cell_of(atoms))
    assert atoms.get_potential_energy() == pytest.approx(float(found.energy))
    np.testing.assert_allclose(atoms.get_forces(), found.forces.numpy())
    virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
    np.testing.assert_allclose(virial, found.virial.numpy(), atol=1e-3)


def test_peers_in_one_process_feel_the_forces_of_the_teacher():
    pytest.importorskip("openmm")
    common = {"structure": str(WATER64), "device": "cpu", "steps": 2}
    reference = np.array(forces_of(model=PAIR["teacher"], structure=str(WATER64), device="cpu"))
    mts = {"outer_fs": 6.0, "inner_fs": 1.0, "hydrogen_mass": 4.0}
    for found in (
        peer_runs.run_ase(model=PAIR["teacher"], **common),
        peer_openmm.run_openmm(**PAIR, **mts, **common),
    ):
        assert found["steps"] == 2 and found["wall_s"] > 0
        np.testing.assert_allclose(found["start_forces"], reference, atol=1e-5)


def test_a_peer_that_is_not_installed_is_no_crash(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", None)
    with pytest.raises(UserError, match=r"pip install 'mts-driver\[openmm\]'"):
        peer_openmm.run_openmm(
            structure=str(WATER64),
            **PAIR,
            outer_fs=6.0,
            inner_fs=1.0,
            hydrogen_mass=4.0,
            device="cpu",
            steps=1,
        )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nonsense", {}, "use speedup, overhead, inside, kernels, beads, peers"),
        ("kernels", {"beads": "1,2"}, "--beads is not for 'kernels', which takes --atoms"),
        ("beads", {"beads": "1,x"}, "--beads '1,x': give whole numbers above 0"),
        ("kernels", {"atoms": "0"}, "--atoms '0'"),
        ("speedup", {"mode": "inet"}, "--mode 'inet': use unix, shm, zmq or device"),
        ("speedup", {"student": "water,general"}, "takes one --student"),
        ("kernels", {"student": "water,water"}, "two are called 'student water'"),
        ("kernels", {"student": "nowhere"}, "neither a file nor a packaged student"),
        ("overhead", {"outer_fs": "4,6"}, "takes one number"),
        ("codes", {"outer_fs": "4,6"}, "takes one number"),
        ("codes", {"mode": "shm"}, "--mode is not for 'codes', which takes --outer-fs"),
        ("speedup", {"steps": 10}, "--steps is not for 'speedup'"),
        ("speedup", {"outer_fs": "5", "inner_fs": 2.0}, "no multiple of inner_fs"),
    ],
)
def test_options_that_make_no_sense(name, options, message):
    defaults = {"structure": [WATER64], "threads": 0, "rounds": 1, "seconds": 1.0}
    defaults |= {"teacher": "so3lr", "student": "water", "device": "cpu", "json_file": None}
    others = ("outer_fs", "inner_fs", "friction_outer_fs", "mode", "atoms", "beads")
    with pytest.raises(UserError, match=message):
        bench(name, **{**defaults, **dict.fromkeys(others), **options})


@pytest.mark.parametrize("run", ["run_ase", "run_openmm", "run_simulate"])
def test_codes_show_the_same_things_of_the_same_system(tmp_path, run):
    """Energies, temperatures and oxygens after 5 and 10 steps, of other random numbers."""
    pytest.importorskip("openmm")
    atoms = read(WATER64)[:18]
    atoms.pbc, atoms.cell = False, None
    atoms.write(tmp_path / "start.extxyz")
    told = getattr(codes_runs, run)(
        structure=str(tmp_path / "start.extxyz"),
        **PAIR,
        outer_fs=4.0,
        n=4,
        hydrogen_mass_Da=4.0,
        device="cpu",
        seed=2,
        steps=12,
        stride=5,
        output=str(tmp_path / "frames.npz"),
    )
    seen = Seen.read(tmp_path / "frames.npz")
    assert told["steps"] == 12 and told["wall_s"] > 0 and told["clip_events"] == 0
    assert seen.positions_A.shape == (2, 6, 3)
    oxygens = atoms.positions[atoms.numbers == 8]
    moved = np.linalg.norm(seen.positions_A - oxygens, axis=2)
    assert 0.01 < moved[1].max() < 1.0 and moved[0].max() < moved[1].max()
    potential = load_potential(PAIR["teacher"], atoms.numbers)
    start = potential(torch.tensor(atoms.positions), torch.zeros(3, 3, dtype=torch.float64))
    assert np.abs(seen.potential_eV - float(start.energy)).max() < 0.1 * len(atoms)
    degrees = 1.5 * (len(atoms) - 1) * BOLTZMANN_EV_K
    assert (seen.kinetic_eV / degrees > 100).all() and (seen.kinetic_eV / degrees < 600).all()


def test_averages_know_how_far_they_are_apart(tmp_path):
    """Energies of two codes that differ by a few standard errors, and g(r) of a moved atom."""
    atoms, rng = read(WATER64), np.random.default_rng(1)
    degrees = 1.5 * (len(atoms) - 1) * BOLTZMANN_EV_K
    found = []
    for k, shift in enumerate((0.0, 0.1)):
        frames = 100
        oxygens = atoms.positions[atoms.numbers == 8] + 0.05 * rng.normal(size=(10, 64, 3))
        oxygens[:, 0] += 5 * shift
        energies = rng.normal(-100 + shift, 0.25, frames)
        energies[: frames // 5] = 0.0  # is left out
        kinetic = np.full(frames, 300 * degrees)
        positions = np.repeat(oxygens, frames // 10, axis=0)
        Seen(energies, kinetic, positions).write(tmp_path / f"{k}.npz")
        run = {"frames": str(tmp_path / f"{k}.npz"), "steps": 1000, "clip_events": 1}
        run |= {"max_force_difference_eV_A": k, "temperatures_K": {"H": 301.0} if k else None}
        found.append(Averages.of([run, run], atoms, outer_fs=6.0))
    first, second = found
    row = second.row() | differences(second, first)
    assert row["ps"] == 12 and row["clip_events"] == 2 and row["max_force_difference_eV_A"] == 1
    assert row["temperature_ends_K"] == pytest.approx(300)
    assert row["temperature_H_K"] == 301 and "temperature_H_K" not in first.row()
    expected = 301 * np.sqrt(2 / (3 * 128 * 12))
    assert row["temperature_H_stderr_K"] == pytest.approx(expected)
    error_meV = 1e3 * 0.25 / np.sqrt(160) / 192
    assert row["potential_stderr_meV_atom"] == pytest.approx(error_meV, rel=0.5)
    assert row["potential_from_first_meV_atom"] == pytest.approx(100 / 192, abs=4 * 1.5 * error_meV)
    assert row["potential_off_sigma"] == pytest.approx(100 / 192 / error_meV / 2**0.5, rel=0.6)
    assert row["rdf_difference"] > 0.01
    assert "potential_off_sigma" not in differences(first, first)


def test_a_variant_is_a_protocol():
    variant = Variant(label="", teacher="so3lr", student=None, outer_fs=2.0, inner_fs=2.0)
    assert variant.protocol(12).stride == 15


def test_where_more_ranks_do_not_pay():
    """A call of 64 s alone, and 1 s that all ranks have: 256 to 512 gain a ninth."""
    rows = [
        {"ranks": 2**k, "ms": 1000 + 64000 / 2**k, "atoms": 9, "efficiency": 1} for k in range(11)
    ]
    assert "beyond 256 ranks more do not pay for 9 atoms: 512 would be 1.11" in _verdict("it", rows)
    assert "it: 64 ranks pay" in _verdict("it", rows[:7])
