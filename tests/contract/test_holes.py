"""The frames that a run under i-PI keeps of a student that is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from running import assert_nothing_is_left, make_run, mts

from mts_driver.distillation.active import frames_of_run
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.student.file import find_student, read_student, save_student
from mts_driver.runs.input.settings import RunSettings
from mts_driver.runs.input.write import input_xml

WATER64 = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"
SOFT = "ase:toy_calculators:ToyWater?scale=0.0"


def water_run(folder, *, scale, steps=20):
    """64 waters with SO3LR and the student that ships, one radial function of which is scaled."""
    folder.mkdir()
    model, _ = read_student(find_student("water"))
    with torch.no_grad():
        model.radial[:, :, :, 0] *= scale
    save_student(model, folder / "scaled.safetensors", {})
    shutil.copy(WATER64, folder)
    protocol = RunSettings(
        teacher="so3lr",
        student="student:scaled.safetensors",
        outer_fs=6.0,
        inner_fs=1.0,
        hydrogen_mass=4.0,
        temperature_K=300.0,
        friction_per_ps=1.0,
        steps=steps,
        stride=5,
        seed=3,
    )
    (folder / "input.xml").write_text(input_xml(protocol, folder))
    return folder / "input.xml"


def summary_of(input_xml):
    return json.loads((input_xml.parent / "summary.json").read_text())


@pytest.mark.parametrize("scale", [pytest.param(5.0, marks=pytest.mark.slow), 10.0])
def test_a_damaged_student_leaves_labelled_frames(tmp_path, scale):
    """The first has holes and lives; the second blows up, and leaves what led there."""
    pytest.importorskip("so3krates_torch")
    input_xml = water_run(tmp_path / "run", scale=scale)
    done = mts("run", input_xml, "--baseline-steps", 0)
    if scale == 10.0:
        assert done.returncode == 2
        assert "the trajectory has blown up" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
    assert "steps with a hole of the student: " in done.stderr
    assert_nothing_is_left(input_xml)
    summary = summary_of(input_xml)
    assert summary["completed"] == (scale != 10.0)
    frames = read(input_xml.parent / "holes.extxyz", ":")
    # frames with absurd forces, on the way out, are counted but not kept
    assert summary["holes"] >= len(frames) > 0
    assert summary["holes"] == len(frames) or scale == 10.0
    largest = max(f.info["max_force_difference_eV_A"] for f in frames)
    assert summary["max_force_difference_eV_A"] >= largest * (1 - 1e-6)
    assert summary["max_force_difference_eV_A"] == pytest.approx(largest) or scale == 10.0
    start = read(WATER64)
    teacher = load_potential("so3lr", start.numbers)
    student = load_potential(f"student:{input_xml.parent / 'scaled.safetensors'}", start.numbers)
    for frame in (frames[0], frames[-1]):
        assert frame.pbc.all() and (frame.numbers == start.numbers).all()
        assert frame.info["teacher"] == "so3lr"
        assert frame.info["reason"] == "force difference"
        assert frame.info["time_fs"] == pytest.approx(6.0 * frame.info["step"])
        where = torch.tensor(frame.positions), torch.tensor(frame.cell.array)
        direct = teacher(*where)
        assert frame.get_array("teacher_forces") == pytest.approx(direct.forces.numpy(), abs=1e-4)
        assert frame.info["teacher_energy"] == pytest.approx(float(direct.energy), abs=1e-3)
        off = np.linalg.norm(direct.forces - student(*where).forces, axis=1)
        assert frame.info["max_force_difference_eV_A"] == pytest.approx(off.max(), rel=1e-3)
        assert frame.info["atom"] == off.argmax()
    chosen = frames_of_run(input_xml.parent)
    assert 0 < len(chosen) <= len(frames)
    assert np.diff([f.info["time_fs"] for f in chosen]).min(initial=np.inf) >= 10.0


def test_the_intact_student_leaves_none(tmp_path):
    pytest.importorskip("so3krates_torch")
    input_xml = water_run(tmp_path / "run", scale=1.0)
    done = mts("run", input_xml, "--baseline-steps", 0)
    assert done.returncode == 0, done.stderr
    assert "steps with a hole of the student: 0" in done.stderr
    assert not list(input_xml.parent.glob("*h*.extxyz"))
    summary = summary_of(input_xml)
    assert (summary["holes"], summary["hard_frames"]) == (0, 0)
    report = json.loads((input_xml.parent / "report.json").read_text())
    assert (report["holes"], report["hard_frames"]) == (0, 0)
    with pytest.raises(
        UserError, match=r"was clean: 20 outer steps .* max \|F_T-F_S\| was 0\.\d\d"
    ):
        frames_of_run(input_xml.parent)


def test_a_restart_adds_steps_and_repeats_none(tmp_path):
    whole, run = (
        make_run(
            tmp_path / name,
            student=SOFT,
            steps=steps,
            replace=[(f"stride='{steps}' overwrite", "stride='4' overwrite")],
        )
        for name, steps in (("whole", 20), ("run", 10))
    )
    assert mts("run", whole, "--baseline-steps", 0).returncode == 0
    assert mts("run", run, "--baseline-steps", 0).returncode == 0
    holes = run.parent / "holes.extxyz"
    before = read(holes, ":")
    # as after a kill: an older checkpoint, steps beyond it, and a frame that was cut short
    (run.parent / "RESTART").unlink()
    with open(holes, "a") as stream:
        stream.write(holes.read_text()[:300])
    assert any(f.info["step"] > 8 for f in before)
    again = mts("run", run, "--restart", "--baseline-steps", 0, "--steps", 20)
    assert "at step 8 of 20" in again.stderr
    assert again.returncode == 0, again.stderr
    after, uninterrupted = read(holes, ":"), read(whole.parent / "holes.extxyz", ":")
    assert len(after) > len(before)
    assert [f.info["step"] for f in after] == [f.info["step"] for f in uninterrupted]
    assert np.allclose([f.positions for f in after], [f.positions for f in uninterrupted])
    # a new run sets the frames of the old one aside
    assert mts("run", run, "--baseline-steps", 0, "--steps", 2).returncode == 0
    aside = read(run.parent / "#holes.extxyz#0#", ":", format="extxyz")
    assert len(aside) == len(after)
    assert [f.info["step"] for f in read(holes, ":")] == [1, 2]


@pytest.mark.parametrize("action", ["stop", "shorten"])
def test_a_run_stops_or_shortens_its_outer_step_at_a_hole(tmp_path, action):
    input_xml = make_run(tmp_path / "run", student=SOFT, steps=12, on_hole=action)
    done = mts("run", input_xml, "--baseline-steps", 0)
    summary = summary_of(input_xml)
    first = summary["hole_events"][0]
    holes = read(input_xml.parent / "holes.extxyz", ":")
    assert holes[0].info["step"] == first["step"]
    assert f"step {first['step']}: " in (input_xml.parent / "i-pi.log").read_text()
    if action == "stop":
        assert done.returncode == 2
        assert "stopped, as <on_hole> asks, after step" in done.stderr
        assert summary["steps"] == first["step"] and not summary["completed"]
        assert (input_xml.parent / "RESTART").exists()
        return
    assert done.returncode == 0, done.stderr
    assert "the outer step was shortened from step" in done.stderr
    last = summary["hole_events"][-1]["outer_steps"]
    assert last in (2, 4) and summary["completed"]
    assert summary["teacher_calls"] > 12 + 1
    assert summary["student_calls"] == 4 * 12 + 1
    again = mts("run", input_xml, "--restart", "--baseline-steps", 0, "--steps", 14)
    assert again.returncode == 0, again.stderr
    assert summary_of(input_xml)["teacher_calls"] >= 1 + 2 * last


def test_beads_are_watched_one_by_one(tmp_path):
    input_xml = make_run(
        tmp_path / "run",
        student=SOFT,
        steps=6,
        outer_fs=2.0,  # natural masses, with which longer ones blow up
        inner_fs=0.5,
        hydrogen_mass=0.0,
        replace=[("nbeads='1'", "nbeads='4'")],
    )
    assert mts("run", input_xml, "--baseline-steps", 0).returncode == 0
    frames = read(input_xml.parent / "holes.extxyz", ":")
    assert summary_of(input_xml)["holes"] == len(frames) > 0
    teacher = load_potential("ase:toy_calculators:ToyWater", frames[0].numbers)
    for frame in frames:
        direct = teacher(torch.tensor(frame.positions), torch.tensor(frame.cell.array))
        assert frame.get_array("teacher_forces") == pytest.approx(direct.forces.numpy(), abs=1e-6)


def test_runs_without_a_student_have_nothing_to_watch(tmp_path):
    input_xml = make_run(tmp_path / "run", student=None, outer_fs=1.0, steps=3)
    assert mts("run", input_xml, "--baseline-steps", 0).returncode == 0
    assert summary_of(input_xml)["holes"] is None
    with pytest.raises(UserError, match=r"no teacher \[1, 0\] and student \[-1, 1\]"):
        frames_of_run(input_xml.parent)
