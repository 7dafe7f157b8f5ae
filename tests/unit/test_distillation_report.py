"""The report of a distillation: real teacher, the packaged student of water, a few frames."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read

from integrators.state import Evaluation
from mts_driver.distillation.report.results import DistillationReport
from mts_driver.distillation.report.write import write_report
from mts_driver.distillation.sampling.contacts import crowd
from mts_driver.potentials import load_potential
from mts_driver.potentials.timing import milliseconds_per_call
from mts_driver.validation.drift import Drift, nve_respa_drift
from mts_driver.validation.evaluation import Evaluated
from mts_driver.validation.force_constants import ForceConstants, bond_force_constants
from mts_driver.validation.stretch import StretchCurve, stretch_curves, unsafe_lengths

START = Path(__file__).parents[2] / "inputs" / "water64" / "start.extxyz"


def labelled(atoms, teacher, **info):
    cell = torch.tensor(np.array(atoms.cell) * atoms.pbc[:, None])
    frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
    found = teacher(torch.tensor(atoms.positions), cell)
    frame.set_array("teacher_forces", found.forces.numpy())
    return frame


@pytest.fixture(scope="module")
def report():
    """Of a box of water and of a fragment of it, whose second half does not count."""
    pytest.importorskip("so3krates_torch")
    box = read(START)
    teacher = load_potential("so3lr", box.numbers)
    student = load_potential("student:water", box.numbers)
    frames = [labelled(box, teacher, system="water")]
    piece = Atoms(box.numbers[:12], box.positions[:12])
    for k in range(4):  # whole molecules, some ten Å from one another
        arms = box.get_distances(3 * k, range(3 * k, 3 * k + 3), mic=True, vector=True)
        piece.positions[3 * k : 3 * k + 3] = arms + np.array([10.0 * k, 0, 0])
    piece = labelled(piece, load_potential("so3lr", piece.numbers), system="piece <4>")
    piece.arrays["teacher_forces"][6:] = 1e3
    piece.set_array("force_weight", np.repeat([1.0, 0.0], 6))
    bound = []

    def student_for(atoms):
        bound.append(len(atoms))
        return load_potential("student:water", atoms.numbers)

    forces = Evaluated.on_frames([frames[0], piece, frames[0]], student_for)
    assert bound == [192, 12]
    near = box.copy()
    crowd(near, np.random.default_rng(1))
    contacts = Evaluated.on_frames([labelled(near, teacher, system="water")], student_for)
    rng = np.random.default_rng(0)
    return DistillationReport(
        title="water & so3lr",
        forces=forces,
        contacts=contacts,
        constants=bond_force_constants(box, teacher, student, max_bonds=6, rng=rng),
        curves=stretch_curves(box, teacher, student, points=14),
        drifts={
            outer_fs: nve_respa_drift(
                [box], teacher, student, outer_fs=outer_fs, picoseconds=0.06, seeds=(1, 2)
            )
            for outer_fs in (4.0, 6.0)
        },
        student_ms=milliseconds_per_call(student, box, calls=3),
        teacher_ms=milliseconds_per_call(teacher, box, calls=3),
        facts={
            "labels": {"md": 223, "stiff": 500},
            "wall_s": 600.5,
            "settings": {"teacher": "so3lr", "minutes": 10.0, "from": None},
            "command": "mts distill '<box>.xyz' -o water.safetensors",
        },
    )


def test_the_student_of_water_is_what_it_is_said_to_be(report):
    summary = report.summary()
    assert summary["test_atoms"] == 2 * 192 + 6
    assert set(summary["force_rmse_eV_A"]) == {"all", "H", "O"}
    assert 0.02 < summary["force_rmse_eV_A"]["all"] < 0.09
    assert set(summary["force_rmse_by_system_eV_A"]) == {"water", "piece <4>"}
    assert summary["max_force_difference_eV_A"] < 1.0
    assert summary["xh_force_constant_error"]["rms"] < 0.03
    assert summary["xh_force_constant_error"]["bonds"] == 6
    assert summary["heavy_force_constant_error"] is None
    assert list(summary["nve_respa_drift_meV_atom_ps"]) == ["4.0", "6.0"]
    drift = summary["nve_respa_drift_meV_atom_ps"]["6.0"]
    assert len(drift["values"]) == 2 and drift["mean"] == pytest.approx(np.mean(drift["values"]))
    # the centre of mass of 192 atoms takes no heat
    expected = 3.868 * 192 / 191 * drift["mean"]
    assert summary["predicted_heating_K"]["6.0"] == pytest.approx(expected, rel=1e-3)
    close = summary["close_contacts"]
    assert 10 < close["atoms"] < 192 and close["opposite"] < 0.1
    assert summary["force_rmse_eV_A"]["all"] < close["force_rmse_eV_A"] < 2.0
    assert 0.0 < summary["stretch"]["O–H"]["torn_force_rmse_eV_A"] < 1.0
    assert summary["teacher_ms"] > 0 and summary["student_ms"] > 0
    assert summary["wall_s"] == 600.5 and summary["labels"] == {"md": 223, "stiff": 500}


def test_the_stretch_curve_of_water_is_that_of_a_bond(report):
    (curve,) = report.curves
    assert curve.bond == "O–H"
    for force in (curve.teacher_eV_A, curve.student_eV_A):
        assert force[0] > 20 and force[curve.lengths_A > 1.05].max() < -1.0
        assert -8 < force.min() < -4
    assert 0.9 <= curve.lengths_A[np.argmin(curve.teacher_eV)] <= 1.1
    assert len(unsafe_lengths(curve)) == 0


class Page(HTMLParser):
    """The cells and pictures of a page; raises for tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.images, self.tables = [], [], [], 0
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tables += tag == "table"
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.cells.append(data)


def test_the_files(report, tmp_path):
    summary = write_report(report, tmp_path / "water.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["water.html", "water.json", "water.png"]
    assert json.loads((tmp_path / "water.json").read_text()) == summary

    text = (tmp_path / "water.html").read_text(encoding="utf-8")
    page = Page(text)
    (source,) = page.images
    picture = (tmp_path / "water.png").read_bytes()
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == picture
    assert picture.startswith(b"\x89PNG") and len(picture) > 50_000
    assert page.tables >= 7
    assert f"{summary['force_rmse_eV_A']['O']:.4f}" in page.cells
    for cell in ("piece <4>", "all X–H", "4 / 1", "6 / 1", "O–H", "so3lr", "stiff", "600.5"):
        assert cell in page.cells, cell
    assert "mts distill &#x27;&lt;box&gt;.xyz&#x27;" in text
    assert "<title>water &amp; so3lr</title>" in text
    assert not re.search(r"<script|https?://", text), "the page needs no other file"

    write_report(report, tmp_path / "again.safetensors", json_file=tmp_path / "numbers.json")
    assert (tmp_path / "numbers.json").exists() and not (tmp_path / "again.json").exists()


@pytest.mark.parametrize("failing", ["draw", "page"])
def test_the_numbers_outlast_a_picture_that_fails(report, failing, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ValueError("no font")

    monkeypatch.setattr(f"mts_driver.distillation.report.write.{failing}", fail)
    for file in ("water.png", "water.html"):  # of an earlier student
        (tmp_path / file).write_text("old")
    summary = write_report(report, tmp_path / "water.safetensors")
    assert json.loads((tmp_path / "water.json").read_text()) == summary
    assert [p.name for p in tmp_path.iterdir()] == ["water.json"]
    assert capsys.readouterr().err == "no picture: ValueError: no font\n"


def test_what_is_missing_is_null(tmp_path):
    report = DistillationReport(
        title="nothing",
        forces=Evaluated.on_frames([], load_potential),
        student_ms=1.0,
        teacher_ms=10.0,
    )
    summary = write_report(report, tmp_path / "nothing.safetensors")
    for name, value in summary.items():
        if not name.endswith("_ms"):
            assert not value, name
    text = (tmp_path / "nothing.html").read_text()
    assert "No held-out frames." in text and "No bonds." in text
    assert (tmp_path / "nothing.png").stat().st_size > 10_000


def test_holes_and_runs_that_blew_up_are_shown(tmp_path):
    lengths = np.linspace(0.7, 2.0, 14)
    teacher = np.where(lengths < 1.0, 5.0, -3.0)
    student = np.where(lengths > 1.6, 2.0, teacher)
    student[-1] = np.nan
    energy = np.abs(lengths - 1.0)
    curve = StretchCurve(
        bond="C–O",
        atoms=(0, 1),
        lengths_A=lengths,
        teacher_eV_A=teacher,
        student_eV_A=student,
        teacher_eV=energy,
        student_eV=np.where(np.isnan(student), np.nan, energy),
    )
    drift = Drift(
        outer_fs=3.5,
        inner_fs=1.75,
        picoseconds=2.0,
        values=(0.5, float("inf")),
        max_force_difference_eV_A=7.0,
        clip_events=4,
    )
    kinds = np.array(["C–O", "C–O", "C–H"])
    report = DistillationReport(
        title="bad",
        forces=Evaluated.on_frames([], load_potential),
        constants=ForceConstants(kinds, np.array([40.0, 60.0, 30.0]), np.array([42.0, 58.0, 30.3])),
        curves=[curve],
        drifts={3.5: drift},
        student_ms=1.0,
        teacher_ms=10.0,
    )
    summary = write_report(report, tmp_path / "bad.safetensors")
    # relative to the mean of the kind
    assert summary["heavy_force_constant_error"]["rms"] == pytest.approx(0.04)
    assert summary["heavy_force_constant_error"]["mean"] == pytest.approx(0.0, abs=1e-12)
    assert summary["xh_force_constant_error"]["mean"] == pytest.approx(0.01)
    assert summary["predicted_heating_K"] == {"3.5": None}
    assert summary["stretch"]["C–O"]["unsafe_lengths_A"] == pytest.approx([1.7, 1.8, 1.9, 2.0])
    cells = Page((tmp_path / "bad.html").read_text()).cells
    assert "1 of 2 blew up" in cells and "4, 1.70 to 2.00 Å" in cells


def test_atoms_without_weight_and_systems_without_name():
    def nothing(positions, cell):
        return Evaluation(positions.sum() * 0, positions * 0, torch.zeros(3, 3))

    frame = Atoms("OHH", np.eye(3))
    frame.set_array("teacher_forces", np.ones((3, 3)))
    frame.set_array("force_weight", np.array([1.0, 0.5, 0.0]))
    found = Evaluated.on_frames([frame, frame], lambda atoms: nothing)
    assert list(found.symbols) == ["O", "H"] * 2
    assert set(found.systems) == {"H2O"}
    assert found.summary()["force_rmse_eV_A"] == {"all": 1.0, "H": 1.0, "O": 1.0}
