"""mts distill with the real teacher: killed in the middle, continued, and what it leaves behind."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from running import LONG_S, wait_for
from scipy.spatial.distance import cdist

from mts_driver.cli import main
from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.sampling.contacts import crowd
from mts_driver.distillation.sampling.displacements import Skeleton, stretch
from mts_driver.distillation.sampling.sampler import Sampler
from mts_driver.distillation.sampling.schedule import SamplingPlan, block
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.student.file import read_student
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.input.write import input_xml
from mts_driver.structures.bonds import molecules

pytest.importorskip("so3krates_torch")


def mts(folder, *words):
    command = [sys.executable, "-c", "from mts_driver.cli import main; main()", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


SMALL = ("--hidden", "16")
PATIENCE_S = 3 * LONG_S
"""The first distillation on a machine compiles for minutes."""
BUDGET = ("--updates", "200", "--frames", "100")


@pytest.fixture(scope="module")
def methanol(tmp_path_factory):
    """A folder with a student of methanol, whose distillation was killed once and continued."""
    folder = tmp_path_factory.mktemp("methanol")
    write(folder / "methanol.xyz", molecule("CH3OH"))
    words = ("distill", "methanol.xyz", "-o", "s.safetensors", *SMALL, *BUDGET)
    first = mts(folder, *words)
    labels = folder / "s" / "labels.extxyz"
    wait_for(
        lambda: first.poll() is not None or (labels.exists() and labels.stat().st_size > 20_000),
        timeout=PATIENCE_S,
    )
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with labels.open("a") as file:
        file.write("6\nkind=md half a frame")  # what a kill leaves at the end
    before = [a.positions for a in LabelFile(labels, teacher="so3lr").frames]
    second = mts(folder, *words)
    output, _ = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, output
    return folder, before, output


def report_of(folder, name="s"):
    return json.loads((folder / f"{name}.json").read_text())


def test_killed_and_continued(methanol):
    folder, before, _ = methanol
    frames = read(folder / "s" / "labels.extxyz", ":")
    assert len(frames) > len(before) > 10
    np.testing.assert_array_equal([a.positions for a in frames[: len(before)]], before)
    output, _ = (
        again := mts(folder, "distill", "methanol.xyz", "-o", "s.safetensors")
    ).communicate()
    assert again.returncode == 2 and "exists" in output and "--force" in output


@pytest.mark.slow
def test_a_budget_in_steps_is_repeated_to_the_last_bit(methanol, tmp_path):
    """Killed or not: the same labels and the same file of weights; test_same_bits.py is quicker."""
    folder, *_ = methanol
    write(tmp_path / "methanol.xyz", molecule("CH3OH"))
    words = ("distill", "methanol.xyz", "-o", "s.safetensors", *SMALL, *BUDGET)
    output, _ = (done := mts(tmp_path, *words)).communicate(timeout=PATIENCE_S)
    assert done.returncode == 0, output
    for name in ("s/labels.extxyz", "s.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_what_a_distillation_leaves(methanol):
    folder, _, said = methanol
    assert "kernels were compiled" not in said and " of 100 frames" in said
    report = report_of(folder)
    assert sum(report["labels"].values()) == pytest.approx(100, abs=10)
    assert report["training_steps"] == 200 and report["settings"]["minutes"] is None
    # 0.09 eV/Å and −2 % where this was written; no two kinds of machines sum in the same order
    assert report["force_rmse_eV_A"]["all"] < 0.3 * report["teacher_force_rms_eV_A"]
    assert abs(report["xh_force_constant_error"]["mean"]) < 0.1
    assert set(report["stretch"]) == {"C–H", "C–O", "O–H"}
    assert set(report["nve_respa_drift_meV_atom_ps"]) == {"4.0", "6.0", "8.0", "10.0"}
    assert report["student_ms"] > 0 and report["teacher_ms"] > 0 and report["wall_s"] > 0
    assert "force constants" in (folder / "s.html").read_text()
    assert (folder / "s.png").stat().st_size > 10_000
    _, record = read_student(folder / "s.safetensors")
    assert record["settings"]["teacher"] == "so3lr" and "mts distill" in record["command"]

    atoms = molecule("CH3OH")
    student = load_potential(f"student:{folder / 's.safetensors'}", atoms.numbers)
    teacher = load_potential("so3lr", atoms.numbers)
    x, cell = torch.tensor(atoms.positions), torch.zeros(3, 3)
    # free-atom offsets: energies agree although only forces were fitted
    assert abs(float(student(x, cell).energy - teacher(x, cell).energy)) < 0.5


def test_fine_tuned_from_a_run(methanol):
    """From the folder that a run leaves: its frames are labelled, its student and start taken."""
    folder, *_ = methanol
    run = folder / "run"
    run.mkdir()
    frame = molecule("CH3OH")
    frame.set_distance(1, 3, 1.7, fix=0)
    frame.info.update(step=7, time_fs=42.0, max_force_difference_eV_A=4.0, atom=3, reason="bond")
    write(run / "holes.extxyz", frame)
    write(run / "start.extxyz", molecule("CH3OH"))
    protocol = RunSettings(
        teacher="so3lr",
        student="student:general",  # good enough that a short run with it is clean
        outer_fs=6.0,
        inner_fs=1.0,
        hydrogen_mass=4.0,
        temperature_K=300.0,
        friction_per_ps=1.0,
        steps=10,
        stride=5,
        seed=3,
        periodic=False,
    )
    (run / "input.xml").write_text(input_xml(protocol, run))
    words = ("distill", "--from-run", "run", "-o", "t.safetensors", "--until-clean-ps", "0.06")
    budget = ("--updates", "40", "--frames", "80")
    output, _ = (done := mts(folder, *words, *budget)).communicate(timeout=PATIENCE_S)
    assert done.returncode == 0, output
    report = report_of(folder, "t")
    assert report["settings"]["base"].endswith("general")
    assert report["labels"]["hole"] >= 4  # the frame and three displaced copies of it
    assert set(report["force_rmse_before_eV_A"]) == set(report["force_rmse_eV_A"])
    assert report["active_rounds"][-1]["start"]["clean_ps"] == pytest.approx(0.06)
    # on the same frames: those that were held out of the first distillation are others
    assert report["force_rmse_eV_A"]["all"] < report["force_rmse_before_eV_A"]["all"]


def test_bad_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m.xyz", molecule("SiH4"))
    write(tmp_path / "w.xyz", molecule("H2O"))
    water = ("w.xyz", "-o", "s.safetensors", "--from", "water")
    for words, message in (
        (("m.xyz", "-o", "s.pt"), "must end in .safetensors"),
        (("m.xyz", "-o", "nowhere/s.safetensors"), "does not exist"),
        (("gone.xyz", "-o", "s.safetensors"), "does not exist"),
        (("m.xyz", "-o", "s.safetensors"), "element Si"),
        (("-o", "s.safetensors"), "STRUCTURES is missing"),
        (("m.xyz", "-o", "s.safetensors", "--messages", "2"), "--messages 2 is too small"),
        (("m.xyz", "-o", "s.safetensors", "--cutoff-A", "12"), "--cutoff-A 12 is not a distance"),
        ((*water, "--cutoff-A", "4"), "has 3.5, and keeps it"),
        ((*water, "--hidden", "16"), "has 64, and keeps it"),
        ((*water, "--direct"), "has forces from an energy"),
        (("m.xyz", "-o", "s.safetensors", "--without", "md5"), "no such kind of labels"),
        (("m.xyz", "-o", "s.safetensors", "--from", "water"), "knows H, O"),
        (("-o", "s.safetensors", "--from-run", "nowhere"), "does not exist"),
        (("m.xyz", "-o", "s.safetensors", "--updates", "9"), "--updates is given without --frames"),
    ):
        monkeypatch.setattr(sys, "argv", ["mts", "distill", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        output = "".join(capsys.readouterr())
        assert ended.value.code == 2, output
        assert message in " ".join(output.split()), output
    assert not (tmp_path / "s.safetensors").exists()


def test_labels_of_another_teacher_and_of_a_broken_one(tmp_path):
    atoms, path = molecule("H2O"), tmp_path / "labels.extxyz"
    labels = LabelFile(path, teacher="a")
    forces = np.zeros((3, 3))
    where = {"kind": "md", "split": "train", "system": "a", "energy_eV": 1.0}
    labels.add(atoms, **where, forces_eV_A=forces)
    with pytest.raises(UserError, match="NaN or infinity"):
        labels.add(atoms, **where, forces_eV_A=forces * np.nan)
    assert len(LabelFile(path, teacher="a").frames) == 1
    with pytest.raises(UserError, match=r"labels in .* are of the teacher 'a'"):
        LabelFile(path, teacher="b")


def test_a_full_disk_keeps_what_was_labelled(tmp_path, monkeypatch):
    path = tmp_path / "labels.extxyz"
    labels = LabelFile(path, teacher="a")
    where = {"kind": "md", "split": "train", "system": "a", "energy_eV": 1.0}
    labels.add(molecule("H2O"), **where, forces_eV_A=np.zeros((3, 3)))

    def full(target, *_, **__):
        with open(target, "a") as file:
            file.write("3\nProperties=spec")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mts_driver.distillation.labels.label_file.write", full)
    with pytest.raises(UserError, match=r"No space left .* the 1 so far are kept"):
        labels.add(molecule("H2O"), **where, forces_eV_A=np.zeros((3, 3)))
    monkeypatch.undo()
    assert len(LabelFile(path, teacher="a").frames) == 1


class Moody(EMT):
    """Fails on frames with a long O-H bond, as a self-consistent field might."""

    longest_A = 1.3

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        if max(atoms.get_distances(0, [1, 2])) > self.longest_A:
            raise RuntimeError("SCF not converged")


def sampler(path, labeller_spec, **options):
    labels = LabelFile(path, teacher=labeller_spec)
    plan = SamplingPlan(temperature_K=300.0, calls=300)
    labeller = Labeller(labeller_spec, labels)
    return Sampler(
        molecule("H2O"), "water", labeller, plan, seed=1, report=lambda *_: None, **options
    )


TOY = "ase:toy_calculators:ToyWater"


@pytest.mark.parametrize("scale", [1.02, 6.0])
def test_a_student_to_start_from_runs_the_dynamics(tmp_path, monkeypatch, scale):
    """The first is good, and takes two of three steps; the second is lost, and handed over."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    student, calls = load_potential(f"{TOY}?scale={scale}", molecule("H2O").numbers), []

    def runner(positions, cell):
        calls.append(stages[-1] if stages else None)
        return student(positions, cell)

    made = sampler(tmp_path / "labels.extxyz", TOY, runner=runner, settling_steps=10)
    stages = []
    made.report = lambda stage, done, total: stages.append(stage)
    made.run()
    frames = made.labels.of("md")
    assert len(frames) == made.plan.md_steps // made.plan.every
    teacher = load_potential(TOY, frames[0].numbers)
    for frame in frames[::5]:
        found = teacher(torch.tensor(frame.positions), torch.zeros(3, 3)).forces
        np.testing.assert_allclose(frame.get_array("teacher_forces"), found, atol=1e-6)
    steps = [frame.info["step"] for frame in frames]
    if scale == 1.02:
        assert np.all(np.diff(steps) == made.plan.every) and not made.labels.of("hole")
        assert stages.count("the student equilibrates") == 10
        for temperature in (300, 450):  # three inner steps in each outer one
            stage = f"teacher and student at {temperature} K"
            assert calls.count(stage) == pytest.approx(3 * stages.count(stage), abs=4)
        # continued as if nothing had been
        labels = len(made.labels.frames)
        made.run()
        assert len(made.labels.frames) == labels
    else:
        assert len(made.labels.of("hole")) >= 1 and steps[-1] <= made.plan.md_steps


def test_a_teacher_that_fails_on_some_frames_is_survived(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    made = sampler(tmp_path / "labels.extxyz", "ase:test_distill:Moody")
    made.run()
    assert 3 < len(made.labeller.failed) < 25
    assert all("SCF not converged" in text for text in made.labeller.failed)
    assert len(made.labels.of("shaken")) > made.plan.shaken // 2
    assert len(made.labels.of("stretched")) < made.plan.stretched


def test_a_teacher_that_mostly_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(Moody, "longest_A", 0.98)
    made = sampler(tmp_path / "labels.extxyz", "ase:test_distill:Moody")
    with pytest.raises(UserError, match="SCF not converged"):
        made.run()


def test_time_blocks_do_not_touch():
    splits = [block(k / 100) for k in range(1, 101)]
    assert splits == sorted(splits, key=["train", "gap", "test"].index)
    assert splits.count("gap") >= 3 and splits.count("test") == 20


def test_plan_adds_up():
    plan = SamplingPlan(temperature_K=300.0, calls=4000)
    displaced = plan.shaken + plan.stretched + plan.contacts + 2 * plan.stiff_pairs
    dynamics = plan.equilibration_steps + plan.md_steps + 2 * plan.hot_steps
    assert displaced + dynamics == pytest.approx(plan.calls, rel=0.02)


def test_crowded_molecules_stay_whole(structures):
    atoms = read(structures / "water64_packmol.extxyz")
    start = atoms.copy()
    crowd(atoms, np.random.default_rng(0))
    assert molecules(start).max() == 63
    moved = np.linalg.norm(atoms.positions - start.positions, axis=1).reshape(64, 3).max(1) > 1e-6
    assert 1 <= moved.sum() <= 20
    for k in range(64):
        for pair in ((0, 1), (0, 2), (1, 2)):
            a, b = (3 * k + n for n in pair)
            assert atoms.get_distance(a, b, mic=True) == pytest.approx(
                start.get_distance(a, b, mic=True)
            )


def test_molecules_of_a_gas_meet_in_pairs():
    a = molecule("CH3CH2OH")
    atoms = Atoms()
    for k in range(6):
        atoms += Atoms(a.numbers, a.positions + np.array([30.0 * k, 0.0, 0.0]))
    start = atoms.copy()
    crowd(atoms, np.random.default_rng(0))
    whole = [slice(9 * k, 9 * k + 9) for k in range(6)]
    nearest = np.full((6, 6), np.inf)
    for m, k in itertools.permutations(range(6), 2):
        nearest[m, k] = cdist(atoms.positions[whole[m]], atoms.positions[whole[k]]).min()
    assert ((nearest < 3.6).sum(1) == 1).all()  # spheres of two carbons touch at 3.4 Å
    for part in whole:
        np.testing.assert_allclose(
            atoms[part].get_all_distances(), start[part].get_all_distances(), atol=1e-9
        )


def test_a_lone_ion_and_a_lone_hydrogen_bond_get_their_turn(structures):
    atoms = read(structures / "trimethylamine_water200.extxyz")
    member = molecules(atoms)
    amine = np.flatnonzero(member == member[atoms.numbers == 7])
    nitrogen = int(np.flatnonzero(atoms.numbers == 7)[0])
    oxygen, hydrogen = 13, 14  # a molecule of water, put to where the nitrogen is its acceptor
    assert atoms.numbers[[oxygen, hydrogen]].tolist() == [8, 1]
    lone_pair = 3 * atoms.positions[nitrogen] - sum(
        atoms.positions[nitrogen] + atoms.get_distance(nitrogen, k, mic=True, vector=True)
        for k in amine
        if atoms.numbers[k] == 6
    )
    water = np.flatnonzero(member == member[oxygen])
    atoms.positions[water] += (
        atoms.positions[nitrogen]
        + 1.9 * lone_pair / np.linalg.norm(lone_pair)
        - atoms.positions[hydrogen]
    )
    skeleton = Skeleton.of(atoms)
    for seed in range(4):
        crowded, stretched = atoms.copy(), atoms.copy()
        crowd(crowded, np.random.default_rng(seed))
        assert np.abs(crowded.positions - atoms.positions)[amine].max() > 0.1
        stretch(stretched, skeleton, np.random.default_rng(seed))
        assert stretched.get_distance(oxygen, hydrogen) != atoms.get_distance(oxygen, hydrogen)
