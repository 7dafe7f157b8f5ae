"""Frames between those of real runs and of files: replayed, bridged, flagged, written."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from running import STUDENT, TEACHER, here, make_run, mts, toy_water

from mts_driver import simulate
from mts_driver.errors import UserError
from mts_driver.potentials.student.file import read_student
from mts_driver.runs.input.settings import RunSettings
from mts_driver.super_resolution.apply import apply
from mts_driver.super_resolution.files.stored import read_stored
from mts_driver.super_resolution.fillers import filler
from mts_driver.super_resolution.frames import gaps_from
from mts_driver.super_resolution.train import train

HOW = {
    "sockets": {"mode": "unix"},
    "inner steps in a driver": {"mode": "zmq"},
    "outer steps in a driver": {
        "mode": "zmq",
        "device_steps": 3,
        "hydrogen_friction_per_ps": 20.0,
    },
}


@pytest.fixture(scope="module", params=HOW)
def run(request, tmp_path_factory):
    """A run that has stored every outer step, 12 of 4 fs, restarted in the middle."""
    folder = tmp_path_factory.mktemp("run")
    file = make_run(folder, store_for_superres=True, steps=6, stride=3, **HOW[request.param])
    for more in ((), ("--restart", "--steps", 12)):
        done = mts("run", file, "--baseline-steps", 0, *more)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def in_run(run, monkeypatch):
    """The models of the run lie in its folder."""
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(run)
    return run


def test_a_run_stores_what_it_takes_and_no_more_calls(run):
    found = read_stored(run)
    assert len(found.frames) == 13 and found.frames.timestep_fs == pytest.approx(4.0)
    assert found.student == STUDENT and found.steps.tolist() == list(range(13))
    hydrogens = found.frames.inertia[found.frames.numbers == 1]
    assert np.allclose(hydrogens / hydrogens[0], 1.0)
    # those of the teacher, at the same positions
    calculator = toy_calculator(run)
    atoms = toy_water()
    atoms.positions = found.frames.positions_A[5]
    atoms.calc = calculator
    forces = found.frames.accelerations_A_fs2[5] * found.frames.inertia[:, None]
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=2e-5)


def toy_calculator(run):
    from toy_calculators import ToyWater

    return ToyWater()


def test_outer_steps_are_replayed_with_their_noise(in_run):
    found = read_stored(in_run)
    fill = filler("replay", found, dtype="float64")
    between, _ = gaps_from(found.frames, np.arange(12), 1)
    replayed = fill(between, 4)
    assert replayed.positions_A.shape == (3, 12, 24, 3)
    # what is stored has 6 digits of velocities
    assert replayed.astray_A.max() < 1e-5
    # other noise is noticed
    text = (in_run / "input.xml").read_text()
    try:
        (in_run / "input.xml").write_text(text.replace("<seed> 7 </seed>", "<seed> 8 </seed>"))
        with pytest.raises(UserError, match="its noise, its student or its input were others"):
            filler("replay", found, dtype="float64")(between, 4)
    finally:
        (in_run / "input.xml").write_text(text)


def test_the_command_replays_by_default(in_run, tmp_path):
    dense, numbers = tmp_path / "dense.extxyz", tmp_path / "numbers.json"
    done = here("superres", "apply", in_run, "--every-fs", 1, "-o", dense, "--json", numbers)
    assert done.returncode == 0, done.stderr
    assert json.loads(numbers.read_text())["model"] == "replay"
    frames, stored = read(dense, ":"), read_stored(in_run).frames
    assert len(frames) == 49
    assert [f.info["stored"] for f in frames] == [k % 4 == 0 for k in range(49)]
    for k, frame in enumerate(frames[::4]):
        assert frame.info["time_ps"] == pytest.approx(0.004 * k)
        np.testing.assert_allclose(frame.positions, stored.positions_A[k], atol=1e-7)
        velocities = frame.get_velocities() * units.fs
        np.testing.assert_allclose(velocities, stored.velocities_A_fs[k], atol=1e-7)
    again = here("superres", "apply", in_run, "--every-fs", 1, "-o", dense)
    assert again.returncode == 2 and "exists" in again.stderr


def test_without_its_input_a_student_fills_the_gaps_and_noise_is_said(in_run, tmp_path):
    told = []
    found = apply(in_run, tmp_path / "x.extxyz", every_fs=1.0, model=STUDENT, tell=told.append)
    assert found.frames == 49 and "a thermostat kicks the atoms" in " ".join(told)
    replayed = apply(in_run, tmp_path / "y.extxyz", every_fs=1.0, tell=told.append)
    assert replayed.model == "replay"
    off = [
        np.abs(a.positions - b.positions).max()
        for a, b in zip(read(found.file, ":"), read(replayed.file, ":"), strict=True)
    ]
    assert 0.0 < max(off) < 3e-3  # the noise of a thermostat of 1/ps within 4 fs


def test_a_report_has_the_spectrum_of_such_a_run(in_run, tmp_path):
    picture, numbers = tmp_path / "r.png", tmp_path / "r.json"
    done = here("report", in_run, "-o", picture, "--json", numbers)
    assert done.returncode == 0, done.stderr
    assert "frames stored every 4 fs, filled in by replay, every 1 fs" in done.stdout
    motion = json.loads(numbers.read_text())["motion"]
    assert motion["picoseconds"] == pytest.approx(0.048) and motion["interval_fs"] == 1.0
    assert motion["velocity_autocorrelation"][0] == 1.0 and len(motion["lags_fs"]) == 25
    assert np.trapezoid(motion["density_cm"], motion["wavenumbers_cm"]) == pytest.approx(1.0)
    short = here("report", in_run, "-o", picture, "--json", numbers, "--spectrum-ps", 0.001)
    assert short.returncode == 0 and "density of states: 0.004 ps" in short.stdout
    without = here("report", in_run, "-o", picture, "--json", numbers, "--spectrum-ps", 0)
    assert without.returncode == 0 and json.loads(numbers.read_text())["motion"] is None


def test_the_teacher_of_a_run_is_the_one_that_is_asked(in_run, tmp_path):
    assert read_stored(in_run).teacher == TEACHER
    few, many = (
        apply(
            in_run,
            tmp_path / f"{calls}.extxyz",
            every_fs=1.0,
            model=STUDENT,
            teacher_calls=calls,
            tell=lambda _: None,
        )
        for calls in (0, 3)
    )
    off = [
        np.abs(a.positions - b.positions).max()
        for a, b in zip(read(few.file, ":"), read(many.file, ":"), strict=True)
    ]
    # another teacher would be far away
    assert 0.0 < max(off) < 1e-3


def test_the_end_of_a_run_can_be_read_alone(in_run):
    whole, end = read_stored(in_run), read_stored(in_run, last=3)
    assert end.steps.tolist() == [10, 11, 12] and end.start_fs == pytest.approx(40.0)
    np.testing.assert_array_equal(end.frames.positions_A, whole.frames.positions_A[-3:])
    with pytest.raises(UserError, match=r"timestep_fs=1: .* has frames every 4 fs"):
        read_stored(in_run, timestep_fs=1.0)


def test_what_cannot_be_stored_is_refused():
    common = {"teacher": TEACHER, "student": STUDENT, "outer_fs": 4.0, "inner_fs": 1.0}
    common |= {"hydrogen_mass": 0.0, "temperature_K": 300.0, "friction_per_ps": 1.0}
    common |= {"steps": 4, "stride": 1, "seed": 1, "store_for_superres": True}
    for more in ({"beads": 4}, {"pressure_bar": 1.0}, {"exchange_K": (350.0,)}):
        with pytest.raises(UserError, match="one replica of one bead at constant volume"):
            RunSettings(**common, **more)


def single_steps(atoms, steps, file):
    """Run at constant energy with natural masses, a frame every 2 fs."""
    from toy_calculators import ToyWater

    simulate(
        atoms,
        steps=steps,
        teacher=ToyWater(),
        student=None,
        outer_fs=0.5,
        friction_per_ps=0.0,
        hydrogen_mass_Da=0.0,
        trajectory=file,
        stride=4,
        progress=False,
    )


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory):
    """At constant energy in this process, every 2 fs of single steps, natural masses."""
    file = tmp_path_factory.mktemp("nve") / "nve.extxyz"
    single_steps(toy_water(), 200, file)
    return read(file, ":"), file


@pytest.fixture
def models(monkeypatch, pytestconfig):
    monkeypatch.syspath_prepend(pytestconfig.rootpath / "tests/contract")


def written(frames, path):
    write(path, frames)
    return path


def test_the_teacher_itself_gives_the_frames_back(trajectory, models, tmp_path):
    frames, _ = trajectory
    # the first frame has a moving centre of mass, which the run then keeps still
    coarse, frames = written(frames[4::4], tmp_path / "coarse.extxyz"), frames[4:]  # 8 fs
    told = []
    found = apply(coarse, tmp_path / "d.extxyz", every_fs=2.0, model=TEACHER, tell=told.append)
    for a, b in zip(read(found.file, ":"), frames, strict=False):
        # shots of 0.5 fs, as the run, which keeps the centre of mass still, too
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-4)
        np.testing.assert_allclose(a.get_velocities(), b.get_velocities(), atol=1e-2)
    assert not found.found.left_out
    # that makes the difference
    assert "the centre of mass is held" in told[-1]


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A trajectory whose first molecules are held, that begins at 5 ps."""
    atoms = toy_water()
    atoms.set_constraint(FixAtoms(range(12)))
    file = tmp_path_factory.mktemp("held") / "held.extxyz"
    single_steps(atoms, 60, file)
    frames = read(file, ":")
    for frame in frames:
        frame.info["time_ps"] += 5.0
    write(file, frames)
    return file


def test_held_atoms_stay_and_are_not_learnt_from(held, models, tmp_path):
    found = apply(held, tmp_path / "d.extxyz", every_fs=0.5, model=STUDENT, tell=lambda _: None)
    frames = read(found.file, ":")
    assert frames[0].info["time_ps"] == pytest.approx(5.0)
    moved = np.ptp([f.positions for f in frames], axis=0).max(-1)
    assert moved[:12].max() < 1e-7 < 0.01 < moved[12:].min()
    student = tmp_path / "s.safetensors"
    trained = train([held], student, test_share=0.2, updates=3)
    assert trained.cost["frames"] == 13
    model, _ = read_student(student)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_training_that_was_killed_is_not_that_of_something_else(
    trajectory, tmp_path, monkeypatch
):
    monkeypatch.setattr("mts_driver.distillation.training.trainer.SAVE_EVERY_S", 0.0)

    class Killed(Exception):
        pass

    def kill(what, done, total):
        if done == 2:
            raise Killed

    output = tmp_path / "s.safetensors"
    with pytest.raises(Killed):
        train([trajectory[1]], output, updates=3, report=kill)
    with pytest.raises(UserError, match=r"is of a training with seed=1, not 2: give another"):
        train([trajectory[1]], output, updates=3, seed=2)
    assert train([trajectory[1]], output, updates=3).cost["updates"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.safetensors"]
    with pytest.raises(UserError, match="exists"):
        train([trajectory[1]], output, updates=3)
    for wrong, message in (
        ({"gap_fs": float("nan")}, "gap_fs=nan: give a finite number"),
        ({"test_share": 1.5}, r"test_share=1\.5"),
        ({"updates": 0}, "updates=0: give 1 or more"),
        ({"model": "gru"}, "train student, lstm, rnn"),
        ({"base": "water", "model": "lstm"}, "only for model='student'"),
    ):
        with pytest.raises(UserError, match=message):
            train([trajectory[1]], tmp_path / "t.safetensors", **({"updates": 3} | wrong))


@pytest.mark.parametrize("model", ["quintic", STUDENT])
def test_a_jump_a_swap_and_a_missing_frame_are_flagged(trajectory, models, tmp_path, model):
    frames = [f.copy() for f in trajectory[0]]
    for f, whole in zip(frames, trajectory[0], strict=True):
        f.calc = SinglePointCalculator(f, forces=whole.get_forces())
    broken = [f.copy() for f in frames]
    for f, whole in zip(broken, frames, strict=True):
        f.calc = SinglePointCalculator(f, forces=whole.get_forces())
    broken[20].positions[4] += 0.3
    file = written(broken, tmp_path / "jump.extxyz")
    with pytest.raises(UserError, match=r"2 of 50 gaps .* behind stored frame 19, 20"):
        apply(file, tmp_path / "d.extxyz", every_fs=0.5, model=model)
    assert not (tmp_path / "d.extxyz").exists()
    told = []
    found = apply(
        file, tmp_path / "d.extxyz", every_fs=0.5, model=model, leave_out=True, tell=told.append
    )
    dense = read(found.file, ":")
    assert found.found.left_out == [19, 20] and "left open" in told[-1]
    assert len(dense) == 48 * 4 + 3 and [dense[k].info["segment"] for k in (0, 77, -1)] == [0, 1, 2]
    broken[20].positions[4] -= 0.3
    for values in (broken[30].positions, broken[30].arrays["momenta"]):
        values[[1, 4]] = values[[4, 1]]  # two hydrogens
    with pytest.raises(UserError, match="behind stored frame 29, 30"):
        apply(
            written(broken, tmp_path / "swap.extxyz"),
            tmp_path / "e.extxyz",
            every_fs=0.5,
            model=model,
        )


def test_what_frames_lack_is_said(trajectory, models, tmp_path):
    frames = trajectory[0]

    def tried(change, model="quintic", count=10):
        own = [f.copy() for f in frames[:count]]
        for f, whole in zip(own, frames, strict=False):
            f.calc = SinglePointCalculator(f, forces=whole.get_forces())
        change(own)
        apply(
            written(own, tmp_path / "x.extxyz"),
            tmp_path / "y.extxyz",
            every_fs=0.5,
            model=model,
            force=True,
        )

    def no_momenta(own):
        del own[3].arrays["momenta"]

    def no_forces(own):
        for f in own:
            f.calc = None

    def no_time(own):
        for f in own:
            del f.info["time_ps"]

    def later(own):
        del own[5]

    def other_order(own):
        own[4] = own[4][::-1]

    def other_cell(own):
        own[2].cell[0, 0] += 0.1

    for change, message in (
        (no_momenta, "frame 3 of .* has no velocities, others have"),
        (no_forces, "a quintic spline needs accelerations"),
        (no_time, "does not say when its frames are .*--timestep-fs"),
        (later, r"jumps from 8 to 12 fs behind frame 4, frames are 2 fs apart"),
        (other_order, "frame 4 of .* has other atoms than the first, or another order"),
        (other_cell, "frame 2 of .* has another cell"),
    ):
        with pytest.raises(UserError, match=message):
            tried(change)
    for every_fs in (0.7, 2.0, 0.0):
        with pytest.raises(UserError, match="frames are stored every 2 fs"):
            apply(trajectory[1], tmp_path / "z.extxyz", every_fs=every_fs, model="cubic")
    with pytest.raises(UserError, match="does not say which student"):
        apply(trajectory[1], tmp_path / "z.extxyz", every_fs=0.5)
    with pytest.raises(UserError, match="model='replay' is for folders of runs"):
        apply(trajectory[1], tmp_path / "z.extxyz", every_fs=0.5, model="replay")


@pytest.mark.parametrize("suffix", [".xyz", ".dcd", ".h5md", ".xtc", ".trr"])
def test_others_read_what_is_written(trajectory, models, tmp_path, suffix):
    mda = pytest.importorskip("MDAnalysis")
    file = tmp_path / f"dense{suffix}"
    apply(trajectory[1], file, every_fs=1.0, model="cubic", tell=lambda _: None)
    whole = tmp_path / "dense.extxyz"
    apply(trajectory[1], whole, every_fs=1.0, model="cubic")
    expected = read(whole, ":")
    if suffix == ".xyz":
        found = [frame.positions for frame in read(file, ":")]
    else:
        topology = mda.Universe.empty(len(expected[0]), trajectory=True)
        topology.load_new(str(file), **({"convert_units": True} if suffix == ".h5md" else {}))
        found = [step.positions.copy() for step in topology.trajectory]
        times = [step.time for step in topology.trajectory]
        np.testing.assert_allclose(times, 1e-3 * np.arange(len(times)), atol=1e-5)
        if suffix in (".h5md", ".trr"):
            velocities = expected[7].get_velocities() * units.fs * 1e3
            np.testing.assert_allclose(topology.trajectory[7].velocities, velocities, atol=1e-3)
    assert len(found) == len(expected) == 101
    tolerance = 0.02 if suffix == ".xtc" else 1e-4
    for positions, frame in zip(found, expected, strict=True):
        np.testing.assert_allclose(positions, frame.positions, atol=tolerance)
    for other, options in ((f"x{suffix}", {"leave_out": True}), ("x.pdb", {})):
        with pytest.raises(UserError, match=r"only .extxyz can say|write one of"):
            apply(trajectory[1], tmp_path / other, every_fs=1.0, model="cubic", **options)


def test_models_are_trained_and_used_by_the_command(tmp_path, monkeypatch):
    """On a molecule, with the real teacher."""
    monkeypatch.setattr("mts_driver.bench.nine_molecules.SETTLE_PS", 0.05)
    data = tmp_path / "data"
    words = ["--only", "ethanol", "--ps", 0.1, "--replicas", 1]
    done = here("superres", "molecules", "-o", data, *words)
    assert done.returncode == 0, done.stderr
    runs = sorted(data.glob("*.npz"))
    assert [run.name for run in runs] == ["ethanol-nve-1.npz", "ethanol-nvt-1.npz"]
    first = runs[0].stat().st_mtime_ns
    assert here("superres", "molecules", "-o", data, *words).returncode == 0
    assert runs[0].stat().st_mtime_ns == first
    for kind, more in (("student", []), ("lstm", ["--hidden", 8]), ("rnn", ["--one-way"])):
        model, numbers = tmp_path / f"{kind}.safetensors", tmp_path / f"{kind}.json"
        words = ["--model", kind, "--gap-fs", 2, "--updates", 30, "-o", model, "--json", numbers]
        done = here("superres", "train", runs[0], *words, *more)
        assert done.returncode == 0, done.stderr
        errors = json.loads(numbers.read_text())["errors"]
        assert set(errors) == {kind, "linear", "cubic", "quintic"}
        assert "is of no use" in done.stdout or kind == "student"
        used = apply(runs[0], tmp_path / f"{kind}.extxyz", every_fs=0.25, model="quintic")
        assert used.frames == 399
    coarse = read_stored(runs[0]).frames.part(0, 200, 4)
    turned = replace(coarse, numbers=coarse.numbers[::-1].copy())
    with pytest.raises(UserError, match="has its atoms in the order"):
        filler(str(tmp_path / "lstm.safetensors"), replace(read_stored(runs[0]), frames=turned))
