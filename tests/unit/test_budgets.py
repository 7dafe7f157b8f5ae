"""Budgets in steps: what is asked for, how it is spent, and that nothing is lost to a kill."""

import math

import numpy as np
import pytest
import torch
from ase.build import molecule

from mts_driver.distillation.distill import distill
from mts_driver.distillation.labels.label_file import LabelFile, as_read, complete_frames
from mts_driver.distillation.sampling.fragment_sampler import FragmentSampler
from mts_driver.distillation.sampling.sampler import Sampler
from mts_driver.distillation.sampling.schedule import SamplingPlan, calls_for
from mts_driver.distillation.settings import DistillationSettings
from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.distillation.training.dataset import Graph
from mts_driver.distillation.training.trainer import Trainer, TrainingSet
from mts_driver.errors import UserError
from mts_driver.potentials.student.model import StudentConfig, StudentModel


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "there is no budget"),
        ({"updates": 5}, "--updates is given without --frames"),
        ({"frames": 500}, "--frames is given without --updates"),
        ({"minutes": 3.0, "updates": 5, "frames": 50}, "two budgets for the same thing"),
        ({"minutes": 3.0, "updates": 5}, "--updates is given without --frames"),
        ({"minutes": 0.4}, "--minutes 0.4: give a number from 0.5 up"),
        ({"minutes": math.nan}, "--minutes nan"),
        ({"minutes": math.inf}, "--minutes inf"),
        ({"updates": 0, "frames": 50}, "--updates 0: give at least 1"),
        ({"updates": 5, "frames": -1}, "--frames -1: give at least 1"),
    ],
)
def test_budgets_that_are_refused(budget, message):
    with pytest.raises(UserError, match=message):
        DistillationSettings(structures=(), teacher="so3lr", **budget)


@pytest.mark.parametrize("count", [Sampler.frames, FragmentSampler.frames])
def test_a_plan_makes_as_many_labels_as_were_asked_for(count):
    fewest = count(SamplingPlan(temperature_K=300.0, calls=1))
    for frames in (fewest, 3 * fewest, 600, 5000):
        calls = calls_for(frames, count, 300.0)
        found = count(SamplingPlan(temperature_K=300.0, calls=calls))
        assert frames - 15 <= found <= frames
    assert calls_for(601, count, 300.0) >= calls_for(600, count, 300.0)


def test_too_few_frames_are_refused_with_the_number_that_is_enough(tmp_path):
    fewest = Sampler.frames(SamplingPlan(temperature_K=300.0, calls=1))
    both = [molecule(name) for name in ("H2O", "CH3OH")]
    for atoms, name in zip(both, "ab", strict=True):
        atoms.info["system"] = name
    for systems, least in ((both[:1], fewest), (both, 2 * fewest)):
        with pytest.raises(UserError, match=f"held out.*: give at least {least}"):
            distill_toy(systems, tmp_path, frames=least - 1)
        assert not (tmp_path / "work" / "labels.extxyz").exists()


def distill_toy(systems, folder, *, frames):
    settings = DistillationSettings(
        structures=(), teacher="ase:nothing:Nothing", updates=1, frames=frames
    )
    return distill(
        systems,
        settings,
        output=folder / "s.safetensors",
        work=folder / "work",
        command="",
        report=lambda *_: None,
    )


@pytest.mark.parametrize("names", ["aa", ("02", "2"), ("1e1", "10.0")])
def test_systems_that_the_file_of_labels_cannot_tell_apart(tmp_path, names):
    systems = [molecule("H2O"), molecule("H2O")]
    for atoms, name in zip(systems, names, strict=True):
        atoms.info["system"] = name
    with pytest.raises(UserError, match="2 systems have the name"):
        distill_toy(systems, tmp_path, frames=500)


def labelled(path, count, *, system="a"):
    labels, rng = LabelFile(path, teacher="t"), np.random.default_rng(len(system))
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(size=(3, 3))
        forces = rng.normal(size=(3, 3))
        where = {"kind": "md", "split": "train", "system": system}
        velocities = {"velocities_A_fs": 0.01 * rng.normal(size=(3, 3))}
        labels.add(atoms, **where, energy_eV=rng.normal(), forces_eV_A=forces, arrays=velocities)
    return labels


@pytest.mark.parametrize("system", ["a", "02", "1e5", "two words", "T"])
def test_memory_holds_what_the_file_does(tmp_path, system):
    made = labelled(tmp_path / "labels.extxyz", 3, system=system)
    again = LabelFile(tmp_path / "labels.extxyz", teacher="t")
    for labels in (made, again):
        assert len(labels.of("md", system)) == 3
        assert {f.info["system"] for f in labels.frames} == {as_read(system)}
    for one, other in zip(made.frames, again.frames, strict=True):
        assert one.info == other.info
        assert one.arrays.keys() == other.arrays.keys()
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(values, other.arrays[name])


def test_what_a_kill_left_is_taken_off_to_the_last_byte(tmp_path):
    path = tmp_path / "labels.extxyz"
    labelled(path, 3)
    whole = path.read_bytes()
    second = len("\n".join(whole.decode().splitlines()[:10])) + 1
    for end in (second + 1, second + 40, len(whole) - 60, len(whole) - 1):
        path.write_bytes(whole[:end])  # the last one: a number that lacks a digit, and would pass
        assert len(list(complete_frames(path))) == 2
        assert len(LabelFile(path, teacher="t").frames) == 2
        assert path.read_bytes() == whole[:second]


def training(folder, budget):
    torch.manual_seed(0)
    config = StudentConfig(elements=("H", "C", "O"), hidden=16)
    rng, graphs = np.random.default_rng(0), []
    for _ in range(5):
        atoms = molecule("CH3CH2OH")
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        atoms.set_array("teacher_forces", rng.normal(size=atoms.positions.shape))
        graphs.append(Graph.of(atoms, config))
    model = StudentModel(config).float()
    data = TrainingSet(graphs, [], force_rms=1.0)
    return Trainer(model, data, checkpoint=folder / "t.pt", budget=budget, seed=1)


class Killed(BaseException):
    """Ends a run as a signal would."""


def judge_of(answers):
    given = iter(answers)
    return lambda _: next(given)


@pytest.mark.parametrize("answers", [None, (1.0, 0.2, 0.3, 0.1, 5.0, 6.0), (1.0, 3.0, 4.0)])
def test_a_killed_training_ends_with_the_same_bits(tmp_path, monkeypatch, answers):
    """Killed after every update, also where it ended early because the student got worse."""
    monkeypatch.setattr("mts_driver.distillation.training.trainer.SAVE_EVERY_S", 0.0)
    budget = TrainingBudget(updates=10)

    def run(folder, report, trainer=None):
        folder.mkdir(exist_ok=True)
        trainer = trainer or training(folder, budget)
        judge = None if answers is None else judge_of(answers[len(trainer.judged) :])
        return trainer, trainer.run(report, judge)

    spent = []
    whole, best = run(tmp_path / "whole", lambda *seen: spent.append(seen[0]))
    last = 7 if answers and len(answers) == 3 else 10
    assert spent == list(range(1, last + 1))
    if answers:
        # shares of the budget, never of the time
        assert [share for share, _ in whole.judged] == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0][
            : len(answers)
        ]

    def kill_after_one(seen, *_):
        if seen > before:
            raise Killed

    kills = 0
    while True:
        (tmp_path / "killed").mkdir(exist_ok=True)
        trainer = training(tmp_path / "killed", budget)
        before = trainer.steps + 1
        try:
            _, found = run(tmp_path / "killed", kill_after_one, trainer)
            break
        except Killed:
            kills += 1
    assert kills >= last - 2
    for name, value in best.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=0)


def test_training_in_seconds_is_cut_by_the_clock(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(
        "mts_driver.distillation.training.trainer.time.monotonic", lambda: next(clock)
    )
    trainer, spent = training(tmp_path, TrainingBudget(seconds=7.0)), []
    trainer.run(lambda seconds, *_: spent.append(seconds))
    assert spent == [1, 2, 3, 4, 5, 6, 7] and trainer.share == 1.0
