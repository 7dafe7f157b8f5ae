"""Training: gradients of the fused kernels, stiff pairs, weights of atoms, checkpoints."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.sampling.displacements import (
    STIFF_STEP_A,
    Skeleton,
    stiff_steps,
    stretch,
)
from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.distillation.training.dataset import Graph, StiffPair, collate, normalise
from mts_driver.distillation.training.loss import loss
from mts_driver.distillation.training.student_forces import reference_forces, student_forces
from mts_driver.distillation.training.trainer import Trainer, TrainingSet
from mts_driver.errors import UserError
from mts_driver.potentials.student.model import StudentConfig, StudentModel


def labelled(name="CH3CH2OH", seed=0, **arrays):
    rng = np.random.default_rng(seed)
    atoms = molecule(name)
    atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    atoms.set_array("teacher_forces", rng.normal(size=atoms.positions.shape))
    for key, values in arrays.items():
        atoms.set_array(key, values)
    return atoms


# channels and messages as by default: runs compile their kernels anyway, others cost a minute each
SMALL = {"hidden": 16}


def model(frames, *, dtype=torch.float64, **options):
    torch.manual_seed(0)
    config = StudentConfig(elements=("H", "C", "O", "S"), **SMALL | options)
    made = StudentModel(config)
    normalise(made, [Graph.of(a, config) for a in frames])
    with torch.no_grad():
        made.w3 *= 10
    return made.to(dtype)


def gradients(forces, weights, student):
    for p in student.parameters():
        p.grad = None
    (forces * weights).sum().backward()
    return {n: p.grad for n, p in student.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("messages", [pytest.param(0, marks=pytest.mark.slow), 8])
def test_fused_gradients_equal_torch(messages):
    """Of any function of the forces by every weight, with an element that no atom has."""
    frames = [labelled(), labelled("CH3OH", 1), labelled("CH3SCH3", 2)]
    student = model(frames, messages=messages)
    batch = collate([Graph.of(a, student.config) for a in frames])
    weights = torch.randn(len(batch.forces), 3, generator=torch.manual_seed(1)).double()
    fused, plain = student_forces(student, batch), reference_forces(student, batch)
    torch.testing.assert_close(fused, plain, atol=1e-4, rtol=1e-5)
    ours, exact = gradients(fused, weights, student), gradients(plain, weights, student)
    assert set(ours) == set(exact) and len(ours) == (10 if messages else 8) - 2
    for name, value in exact.items():
        torch.testing.assert_close(
            ours[name], value, atol=1e-5 * float(value.abs().max()), rtol=1e-4, msg=name
        )


def test_direct_forces_have_no_mean_in_any_frame():
    frames = [labelled(), labelled("CH3OH", 1)]
    student = model(frames, direct=True)
    batch = collate([Graph.of(a, student.config) for a in frames])
    for part in student_forces(student, batch).split(batch.sizes):
        torch.testing.assert_close(part.sum(0), torch.zeros(3, dtype=torch.float64))


def test_atoms_without_weight_do_not_count():
    whole = labelled(force_weight=np.ones(9))
    half = whole.copy()
    half.arrays["force_weight"][:4] = 0.0
    spoiled = half.copy()
    spoiled.arrays["teacher_forces"][:4] = 1e3
    student = model([whole])
    value = [
        loss(student, [Graph.of(a, student.config)], [], force_rms=1.0)[0].item()
        for a in (whole, half, spoiled)
    ]
    assert value[1] == pytest.approx(value[2], rel=1e-12) and value[0] != pytest.approx(value[1])


def stiff_frames(atoms, k_eV_A2, rng):
    """Both frames of a pair, labelled by springs along the displaced bonds."""
    steps, bond = stiff_steps(atoms, Skeleton.of(atoms), rng)
    frames = []
    for sign in (1.0, -1.0):
        frame = atoms.copy()
        frame.positions += sign * steps
        frame.set_array("teacher_forces", -k_eV_A2 * sign * steps)
        frame.set_array("stiff_bond", bond)
        frames.append(frame)
    return frames, bond


def test_stiff_pairs_give_the_force_constants():
    atoms = molecule("CH3CH2OH")
    frames, bond = stiff_frames(atoms, 40.0, np.random.default_rng(3))
    config = StudentConfig(elements=("H", "C", "O"))
    pair = StiffPair.of(*frames, config)
    np.testing.assert_allclose(pair.constants, 40.0, rtol=1e-3)
    assert len(pair.constants) == len(set(bond[bond >= 0]))
    heavy = [number for number in set(bond[bond >= 0]) if (bond == number).sum() == 2]
    assert len(heavy) == int((~pair.to_hydrogen).sum()) >= 1
    # a bond with an end outside the complete part of a fragment is left out
    moved = int(np.flatnonzero(bond >= 0)[0])
    for frame in frames:
        frame.set_array("force_weight", np.where(np.arange(9) == moved, 0.0, 1.0))
    assert len(StiffPair.of(*frames, config).constants) == len(pair.constants) - 1
    # a bond counts as much as the one of its atoms that counts more
    for frame in frames:
        frame.set_array("force_weight", np.where(np.arange(9) == moved, 3.0, 1.0))
    pair = StiffPair.of(*frames, config)
    assert pair.weight[pair.bond[0]] == 3.0 and (pair.weight == 1.0).sum() == len(pair.weight) - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_stiffness_loss_vanishes_for_the_right_constants(dtype):
    """And grows as the square of a small error, as a student has that ends training."""
    frames, _ = stiff_frames(molecule("CH3CH2OH"), 40.0, np.random.default_rng(3))
    student = model([labelled()], dtype=dtype)
    pair = StiffPair.of(*frames, student.config)
    forces = [student_forces(student, g).detach() for g in (pair.plus, pair.minus)]
    exact = pair.force_constants(*forces)

    def stiffness(error_eV_A2):
        pair.constants.copy_(exact + error_eV_A2)
        return loss(student, [], [pair], force_rms=1.0)[1].item()

    assert stiffness(0.0) == pytest.approx(0.0, abs=1e-6)
    assert stiffness(0.2) == pytest.approx(4 * stiffness(0.1), rel=0.1)


def test_stiff_bonds_share_no_atom_and_have_the_right_step():
    atoms = molecule("C6H6")
    skeleton = Skeleton.of(atoms)
    for seed in range(5):
        steps, bond = stiff_steps(atoms, skeleton, np.random.default_rng(seed))
        assert all((bond == number).sum() <= 2 for number in set(bond[bond >= 0]))
        lengths = np.linalg.norm(steps[bond >= 0], axis=1)
        assert set(np.round(lengths, 9)) <= {STIFF_STEP_A, STIFF_STEP_A / 2}


def test_stretching_moves_one_side_of_a_heavy_bond_and_no_ring():
    skeleton = Skeleton.of(molecule("C6H6"))
    benzene = molecule("C6H6")
    stretch(benzene, skeleton, np.random.default_rng(0))
    carbon = benzene.positions[benzene.numbers == 6]
    np.testing.assert_allclose(carbon, molecule("C6H6").positions[:6])
    longest = 0.0
    for seed in range(20):
        ethane = molecule("C2H6")
        stretch(ethane, Skeleton.of(ethane), np.random.default_rng(seed))
        longest = max(longest, ethane.get_distance(0, 1))
        for carbon in (0, 1):
            hydrogens = ethane.get_distances(carbon, range(2, 8))
            assert 0.7 < np.sort(hydrogens)[2] < 2.05
    assert longest > 1.9


def training_set(frames, pairs, config):
    return TrainingSet(
        [Graph.of(a, config) for a in frames],
        [StiffPair.of(*p, config) for p in pairs],
        force_rms=1.0,
    )


def test_training_learns(tmp_path):
    frames = [labelled(seed=k) for k in range(3)]
    for frame in frames:  # springs to the ideal places: something that can be learned
        springs = -20.0 * (frame.positions - molecule("CH3CH2OH").positions)
        frame.set_array("teacher_forces", springs)
    config = StudentConfig(elements=("H", "C", "O"), **SMALL)
    pairs = [stiff_frames(molecule("CH3CH2OH"), 40.0, np.random.default_rng(3))[0]]
    torch.manual_seed(0)
    trainer = Trainer(
        StudentModel(config),
        training_set(frames, pairs, config),
        checkpoint=tmp_path / "t.pt",
        budget=TrainingBudget(updates=150),
        seed=1,
    )
    values = []
    trainer.run(lambda _, f, k: values.append(f + k))
    assert np.mean(values[-5:]) < 0.3 * np.mean(values[:5])


def test_the_best_judged_student_is_kept_and_training_ends_early(tmp_path):
    config = StudentConfig(elements=("H", "C", "O"), **SMALL)
    trainer = Trainer(
        StudentModel(config),
        training_set([labelled()], [], config),
        checkpoint=tmp_path / "t.pt",
        budget=TrainingBudget(updates=20),
        seed=1,
    )
    seen, answers = [], iter([1.0, 0.2, 5.0, 7.0, 0.0, 0.0])

    def judge(student):
        seen.append(copy.deepcopy(student.state_dict()))
        return next(answers)

    best = trainer.run(lambda *_: None, judge)
    assert len(seen) == 4 and trainer.steps == 16
    torch.testing.assert_close(best.state_dict()["w1"], seen[1]["w1"], rtol=0, atol=0)


def test_fine_tuning_raises_solutes_but_not_in_fragments(tmp_path):
    labels = LabelFile(tmp_path / "labels.extxyz", teacher="none")
    atoms = molecule("CH4")
    for k in range(7):
        water = molecule("H2O")
        water.translate([5.0 * (k + 1), 0, 0])
        atoms += water
    torn = atoms.copy()
    torn.positions[:5] *= 5.0  # methane in pieces is the solute all the same
    cut = atoms.copy()
    label = {"split": "train", "energy_eV": 0.0, "forces_eV_A": np.ones((26, 3))}
    labels.add(atoms, kind="md", system="a", **label)
    labels.add(torn, kind="stretched", system="a", **label)
    labels.add(cut, kind="md", system="b", arrays={"force_weight": np.full(26, 0.5)}, **label)
    config = StudentConfig(elements=("H", "C", "O"), messages=0)
    plain = TrainingSet.from_labels(labels, config)
    raised = TrainingSet.from_labels(labels, config, raise_solutes=True)
    assert [set(g.weight.tolist()) for g in plain.frames] == [{1.0}, {1.0}, {0.5}]
    for graph in raised.frames[:2]:
        np.testing.assert_allclose(graph.weight, [(21 / 5) ** 0.5] * 5 + [1.0] * 21, rtol=1e-6)
    assert set(raised.frames[2].weight.tolist()) == {0.5}
    assert not any(frame.has("force_weight") for frame in labels.frames[:2])


def test_nothing_to_learn_from(tmp_path):
    labels = LabelFile(tmp_path / "labels.extxyz", teacher="none")
    with pytest.raises(UserError, match="no labelled frame"):
        TrainingSet.from_labels(labels, StudentConfig(elements=("H",)))
    labels.add(
        Atoms("SiH", [[0, 0, 0], [0, 0, 1.5]]),
        kind="md",
        split="train",
        system="a",
        energy_eV=0.0,
        forces_eV_A=np.zeros((2, 3)),
    )
    with pytest.raises(UserError, match="element Si"):
        TrainingSet.from_labels(labels, StudentConfig(elements=("H",)))
