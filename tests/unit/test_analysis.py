"""The analysis against answers that are known."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from mts_driver.analysis.bonds import bond_lengths
from mts_driver.analysis.properties import read_properties
from mts_driver.analysis.rdf import RDF, longest_r, pairs_of, radial_distribution
from mts_driver.analysis.report import report as write_report
from mts_driver.analysis.results import analyse, diffusion_difference
from mts_driver.analysis.run_folder import RunFolder
from mts_driver.analysis.statistics import (
    MIN_BLOCKS,
    BlockAverage,
    block_average,
    block_means,
    difference_in_stderr,
)
from mts_driver.analysis.trajectory import Trajectory, read_trajectory
from mts_driver.errors import UserError
from mts_driver.super_resolution.report import report as whole_report
from mts_driver.units import BOHR_A, HARTREE_EV

WATERS, CELL = 27, 9.3


# --- statistics


def ar1(phi, n, rng):
    """x[k+1] = φ x[k] + ε: variance 1/(1-φ²), standard error of the mean 1/((1-φ) √n)."""
    x = np.empty(n)
    x[0] = rng.normal() / np.sqrt(1 - phi**2)
    for k, noise in enumerate(rng.normal(size=n - 1)):
        x[k + 1] = phi * x[k] + noise
    return x


@pytest.mark.parametrize("phi", [0.0, 0.8, 0.95])
def test_the_error_of_a_correlated_mean_is_right(phi):
    rng = np.random.default_rng(5)
    n = 2**13
    errors = [block_average(ar1(phi, n, rng)) for _ in range(12)]
    exact = 1 / ((1 - phi) * np.sqrt(n))
    assert all(e.converged for e in errors)
    assert np.sqrt(np.mean([e.stderr**2 for e in errors])) == pytest.approx(exact, rel=0.15)
    # where a naive error would be far off
    if phi:
        naive = exact * np.sqrt((1 - phi) / (1 + phi))
        assert min(e.stderr for e in errors) > 1.5 * naive


def test_a_series_shorter_than_its_correlation_is_called_unconverged():
    found = block_average(ar1(0.999, 400, np.random.default_rng(2)))
    assert not found.converged
    assert found.n_blocks >= MIN_BLOCKS


def test_short_constant_and_wrong_series():
    assert np.isnan(block_average([1.0, 2.0]).stderr)
    assert block_average([1.0, 2.0]).mean == 1.5
    assert block_average(np.full(50, 3.0)) == BlockAverage(3.0, 0.0, 1, 50, True)
    for wrong in ([], [[1.0]]):
        with pytest.raises(ValueError, match="shape"):
            block_average(wrong)


def test_blocks_leave_out_the_start():
    assert block_means(np.arange(7.0), 3).tolist() == [2.0, 5.0]


def test_differences_count_both_errors():
    a, b = BlockAverage(5.0, 3.0, 1, 9, True), BlockAverage(0.0, 4.0, 1, 9, True)
    assert difference_in_stderr(a, b) == 1.0


# --- radial distribution


def gas(frames, atoms=200, cell=10.0, symbol="O"):
    rng = np.random.default_rng(8)
    return Trajectory(
        symbols=np.array([symbol] * atoms),
        steps=np.arange(frames),
        # far outside the cell, as i-PI's unwrapped positions are
        positions=cell * (rng.random((frames, atoms, 3)) + rng.integers(-3, 3, (frames, atoms, 3))),
        cells=np.broadcast_to(cell * np.eye(3), (frames, 3, 3)),
    )


@pytest.mark.parametrize(("symbol", "pair"), [("O", "O–O"), ("C", "heavy–heavy")])
def test_an_ideal_gas_has_no_structure(symbol, pair):
    found = radial_distribution(gas(60, symbol=symbol), r_max=4.9)
    assert found.pair == pair
    far = found.r > 1.5
    expected = 1 - 1 / 200  # an atom is not its own neighbour
    assert found.g[far].mean() == pytest.approx(expected, abs=0.005)
    z = (found.g[far] - expected) / found.stderr[far]
    assert 0.7 < np.sqrt(np.mean(z**2)) < 1.7


def test_a_peak_is_found_between_bins_with_its_height():
    r = np.arange(0.025, 6, 0.05)
    g = 1 + 1.7 * np.exp(-(((r - 2.783) / 0.2) ** 2))
    where, height, _ = RDF("O–O", r, g, np.zeros_like(r)).first_peak()
    assert where == pytest.approx(2.783, abs=0.003)
    assert height == pytest.approx(2.7, abs=0.01)
    # the second is the higher, as between hydrogen and oxygen
    g = 1.5 * np.exp(-(((r - 1.8) / 0.2) ** 2)) + 1.6 * np.exp(-(((r - 3.2) / 0.3) ** 2))
    assert RDF("O–H", r, g, np.zeros_like(r)).first_peak()[0] == pytest.approx(1.8, abs=0.01)


def test_the_longest_distance_fits_the_narrowest_cell():
    cells = np.array([np.diag([12.0, 30.0, 30.0]), [[12, 0, 0], [6, 8, 0], [0, 0, 30]]])
    # the second is a sheared cell: its width across b is 8, its width along a 12·8/10 = 9.6
    assert longest_r(cells) == pytest.approx(4.0, rel=1e-3)
    assert longest_r(100 * np.eye(3)[None]) == 10.0


def test_one_atom_has_no_radial_distribution():
    assert radial_distribution(gas(3, atoms=1), r_max=4.0) is None


def test_pairs_of_one_molecule_are_left_out_with_hydrogen_and_others_are_even(tmp_path):
    """Oxygens anywhere with two hydrogens at 1 Å each, in a cell that breathes."""
    whole = read_trajectory([water_run(tmp_path / "run", steps=400) / "simulation.pos_0.xyz"])
    factor = 1 + 0.02 * np.sin(np.arange(len(whole)))[:, None, None]
    found = Trajectory(whole.symbols, whole.steps, whole.positions * factor, whole.cells * factor)
    found = found.after(0)
    assert list(pairs_of(found.symbols)) == ["O–O", "O–H", "H–H"]
    for pair, apart in (("O–H", 1.0), ("H–H", np.sqrt(2))):
        g = radial_distribution(found, r_max=4.4, pair=pair)
        bonded, far = np.abs(g.r - apart) < 0.12, g.r > 2.0
        # 50 at the bond, were they counted
        assert np.abs(g.g[bonded]).max() < 3
        expected = 1 - 1 / 27  # an atom has this part of the others in its own molecule
        assert g.g[far].mean() == pytest.approx(expected, abs=0.02)
        z = (g.g[far] - g.g[far].mean()) / g.stderr[far]
        assert 0.5 < np.sqrt(np.mean(z**2)) < 2.0
    assert radial_distribution(found, r_max=4.4, pair="O–O").g[far].mean() == pytest.approx(
        1 - 1 / 27, abs=0.02
    )


def test_pairs_without_hydrogen_or_of_one_atom():
    assert list(pairs_of(np.array(["O", "O"]))) == ["O–O"]
    assert list(pairs_of(np.array(["O", "H", "H"]))) == ["heavy–H", "H–H"]
    assert list(pairs_of(np.array(["C", "C", "H"]))) == ["heavy–heavy", "heavy–H"]
    assert not pairs_of(np.array(["H"]))


# --- bonds


def test_a_harmonic_bond_has_its_mean_and_width_across_the_cell_wall():
    rng = np.random.default_rng(3)
    frames, cell = 4000, 6.0
    lengths = rng.normal(1.02, 0.03, frames)
    lengths[7] = 1.7
    positions = np.zeros((frames, 2, 3))
    positions[:, 1, 0] = lengths - cell * rng.integers(0, 2, frames)
    found = bond_lengths(
        Trajectory(
            np.array(["O", "H"]),
            np.arange(frames),
            positions,
            np.broadcast_to(cell * np.eye(3), (frames, 3, 3)),
        ),
        equilibrated=np.arange(frames) > 100,
    )
    assert found.mean.mean == pytest.approx(1.02, abs=4 * 0.03 / np.sqrt(frames))
    assert found.mean.stderr == pytest.approx(0.03 / np.sqrt(frames), rel=0.3)
    assert found.std == pytest.approx(0.03, rel=0.05)
    # broken bonds count even before the averages begin
    assert (found.broken, found.max) == (1, pytest.approx(1.7))


def test_no_hydrogen_no_bonds():
    assert bond_lengths(gas(3), equilibrated=np.ones(3, bool)) is None


# --- files of i-PI


def frame(step, *, symbols, positions, cell=CELL, units="angstrom"):
    head = f"# CELL(abcABC): {3 * f'{cell:10.5f}'} {3 * '  90.00000'}  Step: {step:11d}  Bead: 0 "
    head += f"positions{{{units}}}  cell{{{units}}}"
    rows = [
        f"{s:>8s} {x[0]:12.5e} {x[1]:12.5e} {x[2]:12.5e}"
        for s, x in zip(symbols, positions, strict=True)
    ]
    return "\n".join([str(len(rows)), head, *rows]) + "\n"


def table(rows, columns=("step", "time{picosecond}", "potential{electronvolt}", "conserved")):
    head = [f"# column   {k}     --> {name} : words" for k, name in enumerate(columns, 1)]
    return "\n".join(head + [" ".join(f"{x:.8e}" for x in row) for row in rows]) + "\n"


def test_trajectories_survive_restarts_kills_and_other_units(tmp_path):
    def at(x, step, **options):
        return frame(step, symbols=["O"], positions=[[x, 0, 0]], **options)

    file = tmp_path / "pos_0.xyz"
    whole = at(1, 0) + at(2, 15) + at(3, 20) + at(4, 15)
    file.write_text(whole + at(5, 30)[:-20])
    found = read_trajectory([file])
    assert found.steps.tolist() == [0, 15, 20]
    assert found.positions[:, 0, 0].tolist() == [1, 4, 3]
    assert found.after(0).steps.tolist() == [15, 20]
    file.write_text(at(1, 0, units="atomic_unit"))
    found = read_trajectory([file])
    assert found.positions[0, 0, 0] == pytest.approx(BOHR_A)
    assert np.diag(found.cells[0]) == pytest.approx(CELL * BOHR_A)
    assert len(read_trajectory([file, file])) == 2  # two beads
    for wrong in ("", "1\n# no cell\nO 0 0 0\n", "junk\n"):
        file.write_text(wrong)
        with pytest.raises(UserError, match="frame"):
            read_trajectory([file])


def test_trajectories_are_read_as_ipi_reads_them(tmp_path):
    from ipi.utils.io import read_file
    from ipi.utils.units import unit_to_user

    rng = np.random.default_rng(1)
    file = tmp_path / "x_0.xyz"
    text = frame(0, symbols=["O", "H"], positions=rng.normal(size=(2, 3)))
    file.write_text(text.replace("90.00000  90.00000", "80.00000  70.00000"))
    mine = read_trajectory([file])
    with file.open() as handle:
        theirs = read_file("xyz", handle)
    angstrom = unit_to_user("length", "angstrom", 1.0)
    assert mine.positions[0].ravel() == pytest.approx(theirs["atoms"].q * angstrom, rel=1e-7)
    assert mine.cells[0] == pytest.approx(theirs["cell"].h.T * angstrom, rel=1e-6, abs=1e-9)


def test_properties_survive_restarts_and_kills(tmp_path):
    file = tmp_path / "out"
    rows = [(0, 0.0, 5.0, 1.0), (1, 0.006, 6.0, 2.0), (2, 0.012, 7.0, 3.0), (1, 0.006, 6.5, 2.5)]
    file.write_text(table(rows) + "  3.0 0.018")
    found = read_properties(file)
    assert found["step"].tolist() == [0, 1, 2]
    assert found["potential"] == pytest.approx([5.0, 6.5, 7.0], rel=1e-7)
    assert found["time"] == pytest.approx([0.0, 0.006, 0.012], rel=1e-7)
    # without units i-PI prints atomic ones
    assert found["conserved"] == pytest.approx(HARTREE_EV * np.array([1, 2.5, 3]), rel=1e-7)
    odd = table(rows, columns=("step", "time", "potential{kilocal/mol}", "conserved"))
    empty = (table([]), "no complete row")
    for wrong, words in (empty, ("1 2 3\n", "no column 'step'"), (odd, "use electronvolt")):
        file.write_text(wrong)
        with pytest.raises(UserError, match=words):
            read_properties(file)
    with pytest.raises(UserError, match="does not exist"):
        read_properties(tmp_path / "missing")


# --- the report


INPUT = """<simulation><output prefix='simulation'>
<properties filename='out'> [ step, time{picosecond}, potential{electronvolt}, conserved ]
</properties><trajectory filename='pos' format='xyz'> positions{angstrom} </trajectory></output>
<system><ensemble><temperature units='kelvin'> 300 </temperature></ensemble></system></simulation>
"""
SUMMARY = {
    "outer_timestep_fs": 6.0,
    "n_inner": 6,
    "ns_per_day": 2.0,
    "speedup_vs_single_step": 5.0,
    "speedup_vs_single_step_2fs_hmr": 2.5,
    "speedup_vs_single_step_4fs_constrained": 1.25,
    "teacher_calls": 1001,
    "student_calls": 6001,
    "temperatures_K": {"all": 301.0, "H": 302.0, "heavy": 299.0},
}


def water_run(folder, *, seed=0, steps=200, energy=-50.0, summary=True):
    """Water molecules that jump about at random, with bonds of 1.00 ± 0.02 Å."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    (folder / "input.xml").write_text(INPUT)
    rows = [(k, 0.006 * k, energy + rng.normal(), 0.01 * rng.normal()) for k in range(steps + 1)]
    (folder / "simulation.out").write_text(table(rows))
    frames = []
    for step in range(0, steps + 1, 5):
        oxygen = CELL * rng.random((WATERS, 1, 3))
        first = rng.normal(1.0, 0.02, (WATERS, 1, 1)) * [1, 0, 0]
        second = rng.normal(1.0, 0.02, (WATERS, 1, 1)) * [0, 1, 0]
        if step == 0:  # on a grid, so that each hydrogen knows its oxygen
            oxygen = 3.1 * np.array(list(np.ndindex(3, 3, 3)))[:, None, :]
        x = np.concatenate([oxygen, oxygen + first, oxygen + second], axis=1).reshape(-1, 3)
        frames.append(frame(step, symbols=["O", "H", "H"] * WATERS, positions=x))
    (folder / "simulation.pos_0.xyz").write_text("".join(frames))
    if summary:
        (folder / "summary.json").write_text(json.dumps(SUMMARY))
    return folder


def test_a_report_has_its_numbers_and_its_picture(tmp_path):
    run = water_run(tmp_path / "run")
    reference = water_run(tmp_path / "single", seed=1, energy=-60.0, summary=False)
    made = write_report(run, reference=reference)
    assert made.picture == run / "report.png"
    assert made.picture.read_bytes().startswith(b"\x89PNG")
    results = json.loads((run / "report.json").read_text())
    assert results == made.results
    assert results["temperatures_K"] == SUMMARY["temperatures_K"]
    assert results["temperature_target_K"] == pytest.approx(300.0)
    assert results["speedup_vs_single_step"] == 5.0
    assert results["speedup_vs_single_step_4fs_constrained"] == 1.25
    assert results["potential_energy_mean_eV"] == pytest.approx(-50.0, abs=0.5)
    stderr = results["potential_energy_stderr_eV"]
    assert stderr == pytest.approx(1 / np.sqrt(150), rel=0.5)
    assert results["potential_energy_difference_eV"] == pytest.approx(10.0, abs=0.5)
    assert results["potential_energy_difference_in_stderr"] > 30
    bonds = results["xh_bond_A"]
    assert bonds["mean"] == pytest.approx(1.0, abs=0.003)
    assert bonds["std"] == pytest.approx(0.02, rel=0.1)
    assert bonds["broken"] == 0
    assert results["rdf_pair"] == "O–O"
    assert set(results["rdf_first_peak"]) == {"r_A", "height", "height_stderr"}
    assert set(results["rdf_max_deviation"]) == {"r_A", "difference", "in_stderr"}
    for pair, found in results["radial_distributions"].items():
        assert set(results["radial_distribution_deviations"][pair]) == {
            *("r_A", "difference", "in_stderr")
        }
        assert len(found["r_A"]) == len(found["g"]) == len(found["g_stderr"])
    assert list(results["radial_distributions"]) == ["O–O", "O–H", "H–H"]
    assert results["diffusion"] == {} and "30 frames" in results["diffusion_missing"]
    assert results["reference"]["temperatures_K"] is None
    assert 0.25 * 1.2 < results["analysed_from_ps"] < 0.25 * 1.2 + 0.02


def test_a_run_is_its_own_reference(tmp_path):
    run = water_run(tmp_path / "run")
    results = write_report(run, reference=run / "input.xml").results
    assert results["potential_energy_difference_in_stderr"] == 0.0
    assert results["rdf_max_deviation"]["difference"] == 0.0
    assert results["xh_bond_mean_difference_A"] == 0.0


def test_a_reference_of_other_conditions_and_ends_are_told(tmp_path):
    run, other = (water_run(tmp_path / name) for name in ("run", "other"))
    for folder, kelvin, model in ((run, 300, "so3lr"), (other, 400, "student:water")):
        file = folder / "input.xml"
        text = re.sub(r"(<temperature[^>]*>)[^<]*", rf"\1 {kelvin} ", file.read_text())
        more = (
            f"<ffsocket name='teacher'><parameters> {{ model: {model} }} </parameters></ffsocket>"
        )
        file.write_text(text.replace("</simulation>", f"{more}</simulation>"))
    summary = json.loads((other / "summary.json").read_text())
    summary |= {"completed": False, "ended_by": "it blew up"}
    (other / "summary.json").write_text(json.dumps(summary))
    told = []
    results = whole_report(run, reference=other, spectrum_ps=0, tell=told.append).results
    assert results["reference_is_another"] == [
        "it is at 400 K, the run at 300 K",
        "its teacher is student:water, that of the run so3lr",
    ]
    assert any("the reference did not come to its end: it blew up" in line for line in told)
    assert any("the reference is another system: it is at 400 K" in line for line in told)
    with pytest.raises(UserError, match=r"^reference 'nowhere' is not a folder"):
        whole_report(run, reference="nowhere", tell=told.append)


def test_diffusion_is_compared_without_the_inertia_of_noise():
    """Of runs of one pace, times √(1 + i) where coloured noise has slowed one of them."""

    def run(D, slowdown):
        found = SimpleNamespace(D=D, stderr=0.1)
        return SimpleNamespace(diffusion={"H2O": found}, folder=SimpleNamespace(slowdown=slowdown))

    found = diffusion_difference(run(4.0, 1.1), run(4.4, 1.0), "H2O")
    assert found["difference_1e5_cm2_s"] == pytest.approx(0.0)
    found = diffusion_difference(run(4.0, None), run(4.4, 1.0), "H2O")
    assert found["difference_1e5_cm2_s"] == pytest.approx(-0.4)
    assert found["in_stderr"] == pytest.approx(-0.4 / (0.1 * 2**0.5))


@pytest.mark.parametrize(
    ("thermostat", "slowdown"),
    [
        ("<thermostat mode='langevin'> <tau> 1 </tau> </thermostat>", 1.0),
        ("<thermostat mode='gle'> <A shape='(2, 2)'> [ 3, 1, 1, 2 ] </A> </thermostat>", 1.25**0.5),
        ("<thermostat mode='gle'> <A mode='file'> a.txt </A> </thermostat>", None),
    ],
)
def test_a_run_knows_how_much_its_noise_slows_it(tmp_path, thermostat, slowdown):
    run = water_run(tmp_path / "run", steps=5)
    file = run / "input.xml"
    text = file.read_text()
    file.write_text(text.replace("</simulation>", f"<motion>{thermostat}</motion></simulation>"))
    assert RunFolder.find(run).slowdown == pytest.approx(slowdown)


def test_files_go_where_they_are_asked_to(tmp_path):
    run = water_run(tmp_path / "run", steps=10)
    measured = tmp_path / "g.txt"
    measured.write_text("# r g error\n0.5 0.0 0.0\n2.8 2.5 0.1\n")
    made = write_report(
        run, experiment=measured, picture=tmp_path / "a.png", json_file=tmp_path / "b.json"
    )
    assert (made.picture, made.json) == (tmp_path / "a.png", tmp_path / "b.json")
    assert made.picture.exists()
    # too short for errors, which JSON cannot call NaN
    assert json.loads(made.json.read_text())["potential_energy_stderr_eV"] is None
    assert not list(run.glob("report*"))


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_the_shortest_runs_have_a_report(tmp_path, steps):
    run = water_run(tmp_path / "run", steps=steps, summary=False)
    results = write_report(run).results
    assert results["speedup_vs_single_step"] is None
    assert results["xh_bond_A"]["mean"] == pytest.approx(1.0, abs=0.02)


def test_a_start_without_bonds_is_reported_without_them(tmp_path):
    run = water_run(tmp_path / "run")
    file = run / "simulation.pos_0.xyz"
    file.write_text(file.read_text().replace("       O", "       H"))
    results = write_report(run).results
    assert results["xh_bond_A"] is None
    assert results["rdf_pair"] is None


def test_what_the_user_can_put_right_is_said(tmp_path):
    run = water_run(tmp_path / "run", steps=20)
    other = water_run(tmp_path / "other", steps=20)
    file = other / "simulation.pos_0.xyz"
    file.write_text(file.read_text().replace("       O", "       N"))
    full = tmp_path / "folder.png"
    full.mkdir()
    cases = [
        ({"run_dir": tmp_path / "none"}, "not a folder"),
        ({"run_dir": tmp_path}, "input.xml"),
        ({"run_dir": run, "discard": 1.0}, "discard=1 is out of range"),
        ({"run_dir": run, "reference": other}, "a run of the same system"),
        ({"run_dir": run, "experiment": tmp_path / "none"}, "experiment="),
        ({"run_dir": run, "picture": tmp_path / "no" / "a.png"}, "does not exist"),
        ({"run_dir": run, "picture": tmp_path / "a.xyz"}, "a picture ends in one of"),
        ({"run_dir": run, "picture": full}, "is a folder"),
        ({"run_dir": run, "json_file": full}, "is a folder"),
        ({"run_dir": run / "simulation.out"}, "is no i-PI input"),
    ]
    for arguments, words in cases:
        with pytest.raises(UserError, match=words):
            write_report(**arguments)
    assert not list(tmp_path.rglob("report*"))
    for name, words in (("summary.json", "cannot be read"), ("simulation.out", "damaged rows")):
        whole = (run / name).read_text()
        (run / name).write_text(whole.replace("0", "zero"))
        with pytest.raises(UserError, match=words):
            write_report(run)
        (run / name).write_text(whole)
    file.unlink()
    with pytest.raises(UserError, match="written no positions"):
        write_report(other)


def test_the_input_is_found_under_any_name_and_its_prefix_followed(tmp_path):
    run = water_run(tmp_path / "run", steps=20)
    (run / "input.xml").write_text(INPUT.replace(" prefix='simulation'", ""))
    shutil.move(run / "input.xml", run / "nvt.xml")
    (run / "other.xml").write_text("<nothing/>")
    for name in ("simulation.out", "simulation.pos_0.xyz"):
        shutil.move(run / name, run / name.replace("simulation", "i-pi"))
    found = RunFolder.find(run)
    assert found.properties.name == "i-pi.out"
    assert len(analyse(found, discard=0.0).trajectory) == 5


def test_a_system_with_a_prefix_is_found_and_several_are_told_apart(tmp_path):
    run = water_run(tmp_path / "run", steps=20)
    whole = (run / "input.xml").read_text()
    (run / "input.xml").write_text(whole.replace("<system>", "<system prefix='one'>"))
    for name in ("simulation.out", "simulation.pos_0.xyz"):
        shutil.move(run / name, run / f"one_{name}")
    assert len(analyse(RunFolder.find(run), discard=0.0).trajectory) == 5
    two = whole.replace("<system>", "<system/><system>")
    exchange = two.replace("</simulation>", "<smotion mode='remd'/></simulation>")
    for text, words in ((two, "a report is of one"), (exchange, "i-pi-remdsort input.xml")):
        (run / "input.xml").write_text(text)
        with pytest.raises(UserError, match=words):
            RunFolder.find(run)


def test_isotopes_are_hydrogens_and_counts_may_be_missing(tmp_path):
    run = water_run(tmp_path / "run")
    file = run / "simulation.pos_0.xyz"
    file.write_text(file.read_text().replace("       H", "       D"))
    known = json.loads((run / "summary.json").read_text())
    unknown = known | {"teacher_calls": None}
    (run / "summary.json").write_text(json.dumps(unknown))
    made = write_report(run)
    assert made.results["xh_bond_A"]["mean"] == pytest.approx(1.0, abs=0.003)
    assert made.results["teacher_calls"] is None and made.picture.exists()


def test_an_isolated_molecule_has_no_radial_distribution(tmp_path):
    run = water_run(tmp_path / "run")
    text = (run / "input.xml").read_text()
    model = "<ffsocket><parameters> { model: so3lr, periodic: no } </parameters></ffsocket>"
    (run / "input.xml").write_text(text.replace("<system>", f"{model}<system>"))
    made = write_report(run)
    assert made.results["rdf_first_peak"] is None and made.results["rdf_pair"] is None
    assert made.results["xh_bond_A"]["mean"] == pytest.approx(1.0, abs=0.003)
    assert made.picture.exists()
