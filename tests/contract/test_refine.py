"""``mts refine``: from a model and a goal to a refined model, its numbers and its picture."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase.build import bulk
from ase.io import read, write
from running import MTS, environment, mts, wait_for

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.potentials.classical.file import read_model, write_model
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.pair_models import PairModel
from mts_driver.potentials.classical.water import flexible_water
from mts_driver.potentials.student.file import find_student, read_student
from mts_driver.refinement.aims import Aims
from mts_driver.refinement.averages import averages
from mts_driver.refinement.gas_phase import gas_energy_eV
from mts_driver.refinement.goals.goal import Goal, Goals, Observable, average, every
from mts_driver.refinement.models import open_model
from mts_driver.refinement.refine import problem_of, refine
from mts_driver.refinement.settings import RefineSettings
from mts_driver.refinement.system import System
from mts_driver.units import BOLTZMANN_EV_K, LIGHT_CM_FS

SHORT = ("--ps", "0.2", "--timestep-fs", "5", "--settle-ps", "0.05", "--sample-fs", "50")
OPTIONS = (*SHORT, "--temperature-K", "95", "--blocks", "2", "--seed", "3")


@pytest.fixture(scope="module")
def argon(tmp_path_factory):
    """A folder with a liquid, its true model, and one that is wrong."""
    folder = tmp_path_factory.mktemp("argon")
    atoms = bulk("Ar", "fcc", a=5.72, cubic=True).repeat(2)
    atoms.rattle(0.1, seed=1)
    write(folder / "argon.extxyz", atoms)
    for name, sigma in (("true", 3.4), ("wrong", 3.2)):
        model = PairModel(
            "lennard-jones",
            atoms.numbers.tolist(),
            {"epsilon_eV": 0.0103, "sigma_A": sigma},
            cutoff_A=5.7,
        )
        write_model(model, folder / f"{name}.json")
    return folder


def command(argon, *more, output="out"):
    models = (f"classical:{argon / 'wrong.json'}", str(argon / "argon.extxyz"))
    goal = ("--teacher", f"classical:{argon / 'true.json'}", "--fit-to", "rdf")
    return ("refine", *models, *goal, "--output", str(argon / output), *OPTIONS, *more)


def refined(argon, *more, output="out"):
    done = mts(*command(argon, *more, output=output))
    assert done.returncode == 0, done.stderr
    return done


def test_a_liquid_gets_nearer_to_its_own_structure(argon):
    done = refined(argon, "--updates", "6", "--learning-rate", "0.02", "--train", "sigma_A")
    assert f"written: {argon / 'out' / 'wrong.json'}" in done.stdout
    found = json.loads((argon / "out" / "results.json").read_text())
    model = read_model(argon / "out" / "wrong.json", read(argon / "argon.extxyz").numbers.tolist())
    assert 3.2 < model.sigma_A.item() < 3.6
    assert model.epsilon_eV.item() == 0.0103
    assert len(found["history"]) == 6
    assert found["history"][-1]["loss"] < found["history"][0]["loss"]
    assert all(update["told"]["return_error_A"] < 1e-9 for update in found["history"])
    row = found["observables"]["g(r) Ar–Ar"]
    assert row["after"]["off"] < row["before"]["off"]
    assert (argon / "out" / "refinement.png").stat().st_size > 10_000


def test_killed_and_continued_is_the_uninterrupted_one(argon):
    refined(argon, "--updates", "4", output="whole")
    arguments = command(argon, "--updates", "4", output="killed")
    with subprocess.Popen([MTS, *arguments], env=environment()) as process:
        wait_for((argon / "killed" / "refinement.pt").exists, what="update")
        process.send_signal(signal.SIGKILL)
    refined(argon, "--updates", "4", output="killed")
    whole, killed = (
        json.loads((argon / name / "wrong.json").read_text()) for name in ("whole", "killed")
    )
    assert whole == killed
    other = mts(*command(argon, "--updates", "4", "--seed", "4", output="killed"))
    assert other.returncode == 2
    assert "holds a refinement with --seed 3, not 4" in other.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "so3lr"}, "cannot be fitted"),
        ({"model": "classical:none.json"}, "no file"),
        ({"train": ["sigma"]}, "has no such parameter; it has epsilon_eV, sigma_A"),
        ({"teacher": None}, "there is nothing to fit to"),
        ({"fit_to": ["colour"]}, "fit_to='colour' is not known"),
        ({"fit_to": []}, "fit_to is empty"),
        ({"fit_to": ["bonds"]}, "the structure has nothing of it"),
        ({"rdf_file": "none.txt"}, "does not exist"),
        ({"diffusion": [("O2", 2.0)]}, "molecules of 'O2' are not in the structure, which has Ar"),
        ({"elastic_GPa": [1.0, 2.0]}, "give C11, C12 and C44"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(argon, monkeypatch, options, said):
    monkeypatch.chdir(argon)
    given = {"model": "classical:wrong.json", "teacher": "classical:true.json", "fit_to": ["rdf"]}
    given |= {"settings": RefineSettings(updates=1, blocks=2), "output": "bad", **options}
    with pytest.raises(UserError, match=said):
        refine(structure="argon.extxyz", **given)
    assert not (argon / "bad" / "refinement.pt").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timestep_fs", 0.0),
        ("friction_per_ps", -1.0),
        ("blocks", 1),
        ("method", "guess"),
        ("metric", "guess"),
        ("truncation_fs", 0.0),
        ("window_fs", (3.0, 2.0)),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(UserError, match=name):
        RefineSettings(**{name: value})
    with pytest.raises(UserError, match="sample_fs=300"):
        RefineSettings(picoseconds=0.2, sample_fs=300.0).snapshots(in_time=False)


def test_snapshots_are_even_where_something_is_followed():
    settings = RefineSettings(picoseconds=0.1, timestep_fs=1.0, sample_fs=20.0, follow_fs=2.0)
    steps, snapshots, thinned = settings.snapshots(in_time=True)
    assert (steps, snapshots[0], snapshots[-1], thinned) == (100, 0, 100, 10)
    seen = Snapshots(snapshots, *torch.zeros(2, 51, 1, 3), torch.eye(3), torch.ones(1), 1.0)
    assert every(seen, thinned).steps == (0, 20, 40, 60, 80, 100)
    assert settings.snapshots(in_time=False)[1] == (20, 40, 60, 80, 100)


def test_defaults_follow_the_kind_of_model():
    student = RefineSettings.for_model("water", replicas=3)
    assert (student.method, student.metric, student.replicas) == ("reweighting", "ensemble", 3)
    classical = RefineSettings.for_model("classical:water.json", updates=7)
    assert classical == RefineSettings(updates=7)


def test_spectra_end_where_snapshots_tell_no_more(argon):
    system = System.read(argon / "argon.extxyz", print)
    for spacing_fs, last in ((2.0, 4475.0), (4.0, 4125.0), (8.0, 2050.0)):
        (seen,) = system.spectra(lag_fs=300.0, spacing_fs=spacing_fs)
        assert seen.x[-1].item() == last
        assert last < 0.5 / (LIGHT_CM_FS * spacing_fs)


def test_errors_of_averages_count_replicas(argon):
    system = System.read(argon / "argon.extxyz", print)
    opened = open_model(f"classical:{argon / 'true.json'}", system.atoms)
    settings = RefineSettings(timestep_fs=5.0, picoseconds=0.05, sample_fs=50.0, replicas=3)
    goals = Goals([Goal(system.rdfs(thinned=1)[0], torch.tensor(0.0), torch.tensor(1.0))])
    problem = problem_of(opened, goals, settings)
    keep, seen = argon / "averages.pt", [one.observable for one in goals.goals]
    for blocks in (1, 2):
        found = averages(problem, seen, system.start(settings), blocks=blocks, seed=1, keep=keep)
        kept = torch.load(keep, weights_only=True)["found"][seen[0].name]
        assert len(kept) == 3 * blocks
        values = torch.stack(kept)
        torch.testing.assert_close(found.mean[seen[0].name], values.mean(0))
        spread = values.std(0) / (3 * blocks) ** 0.5
        torch.testing.assert_close(found.error[seen[0].name], spread)


def test_a_student_is_refined_towards_its_teacher(tmp_path):
    """Hardly any steps: the way of the shipped student under SO3LR, not its outcome."""
    root = Path(__file__).parents[2]
    given = {"picoseconds": 0.04, "settle_ps": 0.002, "replicas": 2, "sample_fs": 4.0, "updates": 2}
    found = refine(
        "water",
        root / "inputs/water64/start.extxyz",
        teacher="so3lr",
        output=tmp_path / "out",
        settings=RefineSettings.for_model("water", **given),
    )
    assert found.model == tmp_path / "out" / "water.safetensors"
    before, after = (read_student(path)[0].w3 for path in (find_student("water"), found.model))
    assert not torch.equal(before, after)
    history = found.results["history"]
    # each update has states of its own, which all count alike
    assert [round(one["told"]["effective_share"], 9) for one in history] == [1.0, 1.0]
    assert [one["steps_run"] for one in history] == [42, 42]
    assert set(found.results["observables"]) == {
        *("g(r) O–O", "g(r) O–H", "g(r) H–H", "lengths O–H"),
    }
    assert found.picture is not None


def test_weights_serve_averages_and_nothing_in_time():
    x = torch.arange(3.0).view(3, 1, 1).expand(3, 1, 3)
    seen = Snapshots((1, 2, 3), x, x, torch.eye(3), torch.ones(1), 1.0)
    weighted = seen._replace(weights=torch.tensor([0.0, 0.0, 1.0]))
    values = seen.positions[:, 0]
    assert average(values, seen).tolist() == [1.0] * 3
    assert average(values, weighted).tolist() == [2.0] * 3
    in_time = Observable("D", lambda seen: seen.positions.sum(), in_time=True)
    with pytest.raises(UserError, match="reweighting cannot fit it"):
        in_time(weighted)


def test_parts_of_a_loss_are_remembered():
    one = Observable("x", lambda seen: seen.positions.mean())
    goal = Goal(one, torch.tensor(2.0), torch.tensor(0.0), 0.5, weight=3.0)
    goals = Goals([goal])
    x = torch.ones(1, 1, 3)
    loss = goals(Snapshots((1,), x, x, torch.eye(3), torch.ones(1), 1.0))
    assert loss.item() == pytest.approx(3.0 * (1.0 / 0.5) ** 2)
    assert goals.last == {"x": loss.item()}


def test_a_molecule_alone_has_the_energy_that_its_temperature_gives(tmp_path):
    """Two bonds and an angle, harmonic: 3/2 kT but for what coordinates that bend do."""
    model = MolecularForceField(flexible_water(), [8, 1, 1])
    write_model(model, tmp_path / "water.json")
    structure = tmp_path / "water.extxyz"
    write(structure, _two_molecules())
    system = System.read(structure, print)
    opened = open_model(f"classical:{tmp_path / 'water.json'}", system.atoms)
    energy_eV = gas_energy_eV(opened.gas_phase, system, RefineSettings(temperature_K=300.0))
    assert energy_eV == pytest.approx(1.5 * BOLTZMANN_EV_K * 300.0, rel=0.06)
    assert system.of_formula("H2O").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [one.name for one in system.rdfs(thinned=1)] == ["g(r) O–O", "g(r) O–H", "g(r) H–H"]
    Aims(vaporisation_kJ_mol=40.0).check(system)


def _two_molecules():
    from ase.build import molecule

    one = molecule("H2O", cell=[14.0] * 3, pbc=True)
    other = one.copy()
    other.translate([4.0, 0.0, 0.0])
    return one + other


def run_script(name, monkeypatch, arguments, shorter):
    """Run a script of inputs/python with some of its text replaced."""
    root = Path(__file__).parents[2]
    script = (root / "inputs/python" / name).read_text()
    for long, short in (('"inputs/', f'"{root}/inputs/'), *shorter):
        assert long in script or long == '"inputs/'
        script = script.replace(long, short)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    exec(compile(script, name, "exec"), {})


def test_the_fit_of_water_as_it_stands(tmp_path, monkeypatch):
    """With one form and hardly any steps."""
    monkeypatch.chdir(tmp_path)
    r = [0.0, *(2.0 + 0.1 * k for k in range(60))]
    rows = [(x, *(1.0 - math.exp(-x), 0.05) * 3) for x in r]
    (tmp_path / "soper.txt").write_text("\n".join(" ".join(map(str, row)) for row in rows))
    shorter = (
        ("picoseconds=0.5", "picoseconds=0.04"),
        ("updates=50", "updates=1, blocks=2, settle_ps=0.01"),
        ("replicas=4", "replicas=2"),
        ("FORMS.items()", "list(FORMS.items())[:1]"),
    )
    run_script("fit_water.py", monkeypatch, ["soper.txt"], shorter)
    fitted = tmp_path / "water-lennard-jones" / "fitted"
    assert json.loads((fitted / "results.json").read_text())["observables"]["ΔH vap"]
    assert (fitted / "start.json").exists() and (fitted / "refinement.png").exists()


def test_the_fit_of_diffusion_as_it_stands(tmp_path, monkeypatch):
    shorter = (
        ("picoseconds=4.0", "picoseconds=0.12, settle_ps=0.01"),
        ("replicas=4", "replicas=2"),
        ("_fs=250.0", "_fs=20.0"),
        ("(250.0, 1000.0)", "(20.0, 60.0)"),
        ("truncation_fs=200.0", "truncation_fs=15.0"),
        ("updates=14", "updates=1"),
        ("blocks=6", "blocks=2"),
    )
    run_script("fit_oxygen.py", monkeypatch, [str(tmp_path / "out")], shorter)
    found = json.loads((tmp_path / "out" / "fitted" / "results.json").read_text())
    assert found["observables"]["D O2"]["unit"] == "1e-9 m²/s"
    assert found["history"][0]["gradient_norm"] > 0


@pytest.mark.slow
def test_the_fit_of_diamond_as_it_stands(tmp_path, monkeypatch):
    shorter = (
        ("updates=200", "updates=20"),
        ("updates=250", "updates=1"),
        ("steps=2000", "steps=2"),
    )
    run_script("fit_diamond.py", monkeypatch, [str(tmp_path / "out")], shorter)
    for name in ("classical/silicon.json", "network/network.safetensors"):
        assert (tmp_path / "out" / name).exists()
