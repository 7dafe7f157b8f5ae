"""A distillation in steps ends with the same files, however often it is killed on the way."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read

from mts_driver.distillation import active_learning as improve
from mts_driver.distillation.active_learning import until_clean
from mts_driver.distillation.distill import distill
from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.labels.labeller import Labeller
from mts_driver.distillation.sampling.fragment_sampler import FragmentSampler
from mts_driver.distillation.sampling.sampler import Sampler
from mts_driver.distillation.sampling.schedule import SamplingPlan
from mts_driver.distillation.settings import DistillationSettings
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.student.file import read_student
from mts_driver.simulation.watched_run import Watched

TOY = "ase:toy_calculators:ToyWater"


class Killed(BaseException):
    """Ends a run as a signal would: nothing catches it."""


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)


class MortalWrite:
    """Writes so many frames; of the next one it leaves nothing, or a half, and dies."""

    def __init__(self, monkeypatch, lives):
        from mts_driver.distillation.labels import label_file as labels

        self.native, self.lives, self.deaths = labels.write, lives, 0
        monkeypatch.setattr(labels, "write", self)

    def __call__(self, path, frame, **options):
        if self.left:
            self.left -= 1
            self.native(path, frame, **options)
            return
        self.deaths += 1
        if self.deaths % 2:
            size = path.stat().st_size if path.exists() else 0
            self.native(path, frame, **options)
            with path.open("r+") as file:
                file.truncate(size + (path.stat().st_size - size) * self.deaths // 100 + 1)
        raise Killed

    def survive(self, session):
        """Repeat a session until it ends."""
        while True:
            self.left = self.lives
            try:
                return session()
            except Killed:
                continue


def bytes_of(folder, *names):
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("runner", [None, 1.02, 6.0], ids=["alone", "with a student", "lost"])
def test_sampling_that_is_killed_at_every_label(tmp_path, monkeypatch, runner):
    """Also half way through one, and where the student was lost and the teacher went on alone."""

    def sample(folder):
        folder.mkdir(exist_ok=True)
        labels = LabelFile(folder / "labels.extxyz", teacher=TOY)
        student = runner and load_potential(f"{TOY}?scale={runner}", molecule("H2O").numbers)
        options = {"runner": student, "settling_steps": 5} if runner else {}
        plan = SamplingPlan(temperature_K=300.0, calls=59)
        Sampler(
            *(molecule("H2O"), "water", Labeller(TOY, labels), plan),
            **{"seed": 1, "report": lambda *_: None, **options},
        ).run()
        return labels

    labels = sample(tmp_path / "whole")
    assert bool(labels.of("hole")) == (runner == 6.0)
    mortal = MortalWrite(monkeypatch, lives=1)
    mortal.survive(lambda: sample(tmp_path / "killed"))
    assert mortal.deaths > len(labels.frames) - 3
    whole, killed = (bytes_of(tmp_path / k, "labels.extxyz") for k in ("whole", "killed"))
    assert killed == whole


def test_fragments_of_snapshots_that_are_killed_on_the_way(tmp_path, monkeypatch, structures):
    """The shipped student is its own teacher here: it is the files that count."""
    monkeypatch.setattr("mts_driver.distillation.sampling.fragment_sampler.FIRST_PS", 0.02)
    monkeypatch.setattr("mts_driver.distillation.sampling.fragment_sampler.SPACING_PS", 0.02)
    monkeypatch.setattr("mts_driver.distillation.sampling.fragment_sampler.RELAX_STEPS", 2)
    atoms = read(structures / "ethanol_water200.extxyz")
    student = load_potential("student:general", atoms.numbers)

    def sample(folder):
        folder.mkdir(exist_ok=True)
        labels = LabelFile(folder / "labels.extxyz", teacher="student:general")
        plan = SamplingPlan(temperature_K=300.0, calls=1)
        FragmentSampler(
            *(atoms, "ethanol", Labeller("student:general", labels), plan),
            seed=1,
            report=lambda *_: None,
            student=student,
            radius_A=6.0,
            snapshots=folder / "snapshots.extxyz",
        ).run()
        return labels

    labels = sample(tmp_path / "whole")
    assert len(labels.frames) == FragmentSampler.frames(SamplingPlan(temperature_K=300.0, calls=1))
    mortal = MortalWrite(monkeypatch, lives=5)
    mortal.survive(lambda: sample(tmp_path / "killed"))
    assert mortal.deaths >= 7  # also between snapshots
    files = ("labels.extxyz", "snapshots.extxyz")
    assert bytes_of(tmp_path / "killed", *files) == bytes_of(tmp_path / "whole", *files)


@pytest.fixture
def make(monkeypatch):
    """Distil the toy with a budget in steps; a stage at which a session dies can be given."""

    def draw(report, summary, picture):
        picture.write_bytes(b"a picture takes seconds and shows nothing new here")

    monkeypatch.setattr("mts_driver.distillation.report.write.draw", draw)
    monkeypatch.setattr("mts_driver.distillation.training.trainer.SAVE_EVERY_S", 0.0)
    monkeypatch.setattr("mts_driver.distillation.student_quality.JUDGE_PS", 0.1)
    systems = [molecule("H2O"), molecule("H2O")]
    for atoms, name in zip(systems, ("one", "two"), strict=True):
        atoms.rattle(0.02, seed=1)  # alike: only the names tell their labels apart
        atoms.info["system"] = name

    def run(folder, dies=(), function=distill, **choices):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)  # settings with paths are kept with the student
        settings = {"updates": 100, "frames": 130, "outer_fs": 10.0, "seed": 3}
        settings |= {"hidden": 16}
        settings |= {key: choices.pop(key) for key in settings.keys() & choices.keys()}
        doomed = list(dies)

        def report(what, done, total):
            if doomed and what.startswith(doomed[0]):
                doomed.pop(0)
                raise Killed

        while True:
            try:
                found = function(
                    systems,
                    DistillationSettings(structures=(), teacher=TOY, **settings),
                    output=Path("s.safetensors"),
                    work=Path("work"),
                    command="mts distill",
                    report=report,
                    **choices,
                )
            except Killed:
                continue
            assert not doomed
            return found

    return run


FILES = ("s.safetensors", "work/labels.extxyz")


def test_the_same_seed_gives_the_same_student(tmp_path, make):
    """Of two systems, judged by its drift; killed in every stage or not at all."""
    first = make(tmp_path / "first")
    stages = (
        "teacher MD at 450 K, system 1",
        "relaxation, system 2",
        "training, update 20 of 100",
        "training, update 85 of 100",
        "bonds",
    )
    second = make(tmp_path / "second", dies=stages)
    assert bytes_of(tmp_path / "second", *FILES) == bytes_of(tmp_path / "first", *FILES)
    assert first["training_steps"] <= 100 and sum(first["labels"].values()) == pytest.approx(
        400, 15
    )
    shares = [share for share, _ in first["drift_during_training_meV_atom_ps"]]
    assert len(shares) >= 2 and shares == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0][: len(shares)]
    times = {key for key in first if first[key] != second[key]}
    assert times == {"student_ms", "teacher_ms", "sampling_s", "training_s", "compile_s", "wall_s"}
    # the file tells how it was made, but not how long it took
    _, record = read_student(tmp_path / "first" / "s.safetensors")
    assert record["settings"]["updates"] == 100 and not times & set(record)


def test_labels_for_another_number_of_frames_are_refused(tmp_path, make):
    first = make(tmp_path / "run", frames=90, updates=1)
    with pytest.raises(UserError, match=r"--frames 120: the labels in .* with --frames 90"):
        make(tmp_path / "run", frames=120, updates=1)
    # more updates go on from the checkpoint
    assert make(tmp_path / "run", frames=90, updates=4)["training_steps"] == 4
    other = make(tmp_path / "other", frames=90, updates=1, seed=4)
    assert other["labels"] == first["labels"]
    for name in FILES:
        assert (tmp_path / "other" / name).read_bytes() != (tmp_path / "run" / name).read_bytes()


def test_rounds_of_active_learning_are_not_lost(tmp_path, make, monkeypatch):
    """One hole, one round, killed before, in and after it; then a clean run."""
    runs = []

    def watched(atoms, teacher, student, *, picoseconds, seed, **_):
        runs.append(seed)
        hole = atoms.copy()
        hole.set_distance(0, 1, 1.5, fix=0)
        hole.info = {"step": 7, "time_fs": 70.0}
        clean = seed > 1
        return Watched([] if clean else [hole], picoseconds if clean else 0.07, False, 0.5)

    monkeypatch.setattr(improve, "run_and_watch", watched)
    options = {"frames": 90, "updates": 5, "function": until_clean, "picoseconds": 0.2}
    first = make(tmp_path / "first", **options)
    assert len(first["active_rounds"]) == 2 and runs == [1, 1, 2, 2]
    assert first["labels"]["hole"] == 2 * 4 and first["training_steps"] == 2
    stages = ("bonds", "frames of the run", "training, update 2 of 2", "bonds")
    second = make(tmp_path / "second", dies=stages, **options)
    assert second["active_rounds"] == first["active_rounds"]
    assert bytes_of(tmp_path / "second", *FILES) == bytes_of(tmp_path / "first", *FILES)
    assert not improve.unfinished(tmp_path / "second" / "work", tmp_path / "second/s.safetensors")
    written = json.loads((tmp_path / "second" / "s.json").read_text())
    assert written["active_rounds"] == second["active_rounds"]
    np.testing.assert_allclose(
        LabelFile(tmp_path / "second/work/labels.extxyz", teacher=TOY)
        .of("hole")[0]
        .get_distance(0, 1),
        1.5,
        atol=1e-7,
    )
