"""Holes and hard frames: what counts as one, what is kept, and what a run gives back."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from integrators.state import Evaluation
from mts_driver.distillation.active import frames_of_run, run_and_watch
from mts_driver.errors import UserError
from mts_driver.simulation.frame_file import FrameFile
from mts_driver.simulation.holes import (
    HARD_FILE,
    HOLES_FILE,
    LEARNABLE_EV_A,
    MOST_FRAMES,
    WINDOW,
    Seen,
    Watch,
)

CELL = 8.0


def water(*, wrapped=False):
    atoms = molecule("H2O")
    atoms.cell, atoms.pbc = [CELL] * 3, True
    if wrapped:
        atoms.positions -= atoms.positions[0]
        atoms.wrap(eps=0)
    return atoms


class Recorder:
    """A watch over one molecule whose student is wrong on demand."""

    def __init__(self, atoms):
        self.atoms, self.step, self.kept = atoms, 0, {HOLES_FILE: [], HARD_FILE: []}
        self.watch = Watch(atoms, self.keep)

    def keep(self, name, frame):
        self.kept[name].append(frame)
        return True

    def look(self, difference, *, atom=0, stretch=0.0, teacher=1.0, positions=None):
        x = self.atoms.positions.copy() if positions is None else positions
        x[1] += stretch * (x[1] - x[0]) / np.linalg.norm(x[1] - x[0])
        differences = np.zeros((1, len(x), 3))
        differences[0, atom, 1] = difference
        label = None if teacher is None else (-5.0, np.full((len(x), 3), teacher))
        seen = Seen(
            self.step,
            6.0 * self.step,
            x[None],
            self.atoms.cell.array,
            differences,
            lambda _: label,
        )
        self.step += 1
        return self.watch.look(seen)


def test_what_a_hole_is():
    found = Recorder(water())
    assert found.look(2.9) is None
    assert found.look(3.1, atom=2) == "force difference"
    assert found.look(0.1, stretch=0.4) is None
    assert found.look(0.1, stretch=0.5) == "bond"
    assert found.look(np.nan, atom=1) == "not finite"
    assert found.watch.holes == 3
    frames = found.kept[HOLES_FILE]
    assert [f.info["reason"] for f in frames] == ["force difference", "bond", "not finite"]
    assert [f.info["atom"] for f in frames] == [2, 1, 1]
    assert [f.info["step"] for f in frames] == [1, 3, 4]
    assert frames[0].info["time_fs"] == 6.0
    assert frames[0].info["max_force_difference_eV_A"] == pytest.approx(3.1)
    assert frames[0].info["teacher_energy"] == -5.0
    assert frames[0].get_array("teacher_forces").tolist() == np.ones((3, 3)).tolist()
    assert np.isnan(found.watch.largest_eV_A)


def test_frames_that_teach_nothing_are_counted_but_not_kept():
    found = Recorder(water())
    found.look(5.0, teacher=LEARNABLE_EV_A)
    found.look(5.0, positions=np.full((3, 3), np.nan))
    assert (found.watch.holes, found.kept[HOLES_FILE]) == (2, [])
    # without labels, or with one that is not finite, the frame has still to be labelled
    found.look(5.0, teacher=None)
    found.look(5.0, teacher=np.nan)
    assert [f.has("teacher_forces") for f in found.kept[HOLES_FILE]] == [False, False]
    assert found.watch.holes == 4


def test_bonds_keep_the_image_that_they_start_in():
    atoms = water(wrapped=True)
    assert np.ptp(atoms.positions, axis=0).max() > CELL / 2
    found = Recorder(atoms)
    assert found.look(0.1) is None
    x = water().positions
    rotated = atoms.positions + (x - x[0])[:, [2, 0, 1]] - (x - x[0])
    assert found.look(0.1, positions=rotated) is None
    rotated[2] *= 1.3
    assert found.look(0.1, positions=rotated) == "bond"


@pytest.mark.parametrize(
    ("symbols", "length", "hole"),
    [("OH", 1.46, True), ("CH", 1.44, False), ("SH", 1.70, False), ("SH", 1.76, True)],
)
def test_heavier_atoms_have_longer_bonds(symbols, length, hole):
    found = Recorder(Atoms(symbols, [[0, 0, 0], [0, 0, 1.2]]))
    assert found.look(0.0, positions=np.array([[0, 0, 0], [0, 0, length]])) == (
        "bond" if hole else None
    )


def test_hydrogens_without_a_heavy_atom_are_not_followed():
    found = Recorder(Atoms("OHHH", [[0, 0, 0], [0, 0, 1], [5, 0, 0], [5.7, 0, 0]]))
    far = np.array([[0, 0, 0], [0, 0, 1], [5, 0, 0], [9, 0, 0.0]])
    assert found.look(0.0, positions=far) is None
    assert Recorder(Atoms("Ar2", [[0, 0, 0], [0, 0, 4]])).look(0.0) is None


def test_hard_frames_are_the_largest_of_a_window_and_out_of_the_ordinary():
    found = Recorder(water())
    for k in range(2 * WINDOW):
        found.look({30: 0.7, 60: 0.65, WINDOW + 1: 0.55}.get(k, 0.2))
    # 3 x the median of 0.2 is the bound
    assert [f.info["step"] for f in found.kept[HARD_FILE]] == [30]
    for k in range(20):
        found.look({7: 0.9, 8: 5.0}.get(k, 0.4))
    found.watch.close()
    found.watch.close()
    assert [f.info["step"] for f in found.kept[HARD_FILE]] == [30, 2 * WINDOW + 7]
    assert found.kept[HARD_FILE][0].info["reason"] == "hard"
    assert (found.watch.hard_frames, found.watch.holes) == (2, 1)


def frame(step, difference, **info):
    atoms = water()
    atoms.info.update(
        step=step,
        time_fs=6.0 * step,
        max_force_difference_eV_A=difference,
        atom=0,
        reason="force difference",
        **info,
    )
    atoms.set_array("teacher_forces", np.ones((3, 3)))
    return atoms


def test_a_file_grows_holds_no_step_twice_and_is_bounded(tmp_path):
    path = tmp_path / HOLES_FILE
    first = FrameFile(path, restarted=False)
    assert first.add(frame(3, 4.0)) and first.add(frame(4, 4.0))
    assert not first.add(frame(3, 5.0))
    with open(path, "a") as stream:  # a kill in the middle of a frame
        stream.write(path.read_text()[:200])
    again = FrameFile(path, restarted=True)
    assert not again.add(frame(4, 4.0))
    assert again.add(frame(5, 4.0)) and again.add(frame(5, 4.0, system=1))
    assert [f.info["step"] for f in read(path, ":")] == [3, 4, 5, 5]
    for step in range(6, 2 * MOST_FRAMES):
        again.add(frame(step, 4.0))
    assert len(read(path, ":")) == MOST_FRAMES
    FrameFile(path, restarted=False)
    assert [p.name for p in tmp_path.iterdir()] == [f"#{HOLES_FILE}#0#"]


def test_frames_close_in_time_keep_the_worst(tmp_path):
    differences = [3.1, 4.0, 3.5, 3.2, np.nan, 3.3]
    write(tmp_path / HOLES_FILE, [frame(k, d) for k, d in enumerate(differences)])
    write(tmp_path / HARD_FILE, [frame(100, 0.8), frame(101, 0.9)])
    with open(tmp_path / HARD_FILE, "a") as stream:  # the run was killed while it wrote
        stream.write("3\nLattice=")
    found = frames_of_run(tmp_path)
    assert [int(f.info["step"]) for f in found] == [1, 4, 101]
    assert all(f.has("teacher_forces") for f in found)
    assert [int(f.info["step"]) for f in frames_of_run(tmp_path, most=2)] == [1, 4]
    (tmp_path / "input.xml").write_text("")
    assert len(frames_of_run(tmp_path / "input.xml")) == 3


def test_runs_without_frames_are_explained(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        frames_of_run(tmp_path / "none")
    with pytest.raises(UserError, match="that has ended"):
        frames_of_run(tmp_path)
    for summary, words in (
        ({"holes": 0, "steps": 50, "max_force_difference_eV_A": 0.412}, r"was clean.*0\.41 eV/Å"),
        ({"holes": 2}, "2 outer steps with a hole, but no"),
        ({"holes": None, "holes_reason": "no student"}, "no student"),
        ({"steps": 50}, "a version that kept no frames"),
    ):
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        with pytest.raises(UserError, match=words):
            frames_of_run(tmp_path)
    with pytest.raises(UserError, match="most=0"):
        frames_of_run(tmp_path, most=0)


# --- run_and_watch


class Springs:
    """O-H and H-H springs; with a ``hole`` the O-H bonds push apart beyond that length."""

    def __init__(self, hole=None, push=20.0):
        self.hole, self.push = hole, push

    def __call__(self, positions, cell):
        x = positions.detach().requires_grad_()
        bonds = (x[1:] - x[0]).norm(dim=-1)
        energy = 25 * (bonds - 0.96).square().sum() + 2.5 * ((x[1] - x[2]).norm() - 1.5).square()
        if self.hole is not None:
            energy = energy - self.push * (bonds - self.hole).clamp_min(0).square().sum()
        (slope,) = torch.autograd.grad(energy, x)
        return Evaluation(energy.detach(), -slope, positions.new_zeros(3, 3))


def watched(student, **choices):
    reports = []
    options = {"picoseconds": 0.6, "outer_fs": 6.0, "inner_fs": 1.0, "temperature_K": 300.0}
    options |= {"friction_per_ps": 1.0, "hydrogen_mass_Da": 4.0, "seed": 5} | choices
    atoms = molecule("H2O")
    found = run_and_watch(
        atoms, Springs(), student, report=lambda *words: reports.append(words), **options
    )
    return found, reports


def test_a_good_student_is_clean():
    found, reports = watched(Springs())
    assert found.frames == [] and not found.blown_up
    assert found.clean_ps == pytest.approx(0.6)
    assert found.max_force_difference_eV_A == 0.0
    assert reports[-1] == ("student dynamics", 100, 100)


def test_a_student_with_a_hole_is_caught():
    found, reports = watched(Springs(hole=1.0, push=100.0), picoseconds=6.0)
    assert found.blown_up and reports[-1][1] < 1000
    assert found.max_force_difference_eV_A > 3.0
    holes = [f for f in found.frames if f.info["reason"] != "hard"]
    assert holes and found.clean_ps == pytest.approx(holes[0].info["time_fs"] * 1e-3)
    teacher = Springs()
    for one in found.frames:
        direct = teacher(torch.tensor(one.positions), torch.zeros(3, 3))
        assert one.get_array("teacher_forces") == pytest.approx(direct.forces.numpy(), abs=1e-12)
        assert one.info["teacher_energy"] == pytest.approx(float(direct.energy))
    steps = [f.info["step"] for f in found.frames]
    assert steps == sorted(set(steps))


def test_a_student_that_is_lost_at_once_leaves_the_frame_before():
    class Lost(Springs):
        calls = 0

        def __call__(self, positions, cell):
            assert torch.isfinite(positions).all()
            self.calls += 1
            found = super().__call__(positions, cell)
            return found._replace(forces=found.forces * (np.nan if self.calls == 15 else 1.0))

    found, _ = watched(Lost())
    assert found.blown_up
    assert [f.info["step"] for f in found.frames] == [2]
    assert found.clean_ps == pytest.approx(0.012)


def test_the_lengths_of_steps_are_checked():
    for choices, words in (
        ({"inner_fs": 4.0}, "no multiple"),
        ({"picoseconds": 0.0}, "picoseconds=0"),
        ({"temperature_K": np.nan}, "temperature_K=nan"),
    ):
        with pytest.raises(UserError, match=words):
            watched(Springs(), **choices)
