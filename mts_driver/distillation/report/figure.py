"""The picture of a distillation report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from mts_driver.distillation.report import panels
from mts_driver.distillation.report.results import HEATING_FRICTION_PER_PS, DistillationReport
from mts_driver.files import replacing
from mts_driver.validation.stretch import StretchCurve, unsafe_lengths

MOST_CURVES = 8
"""Stretch curves in the picture, those with holes first; the page lists all of them."""


def draw(report: DistillationReport, summary: dict[str, Any], path: Path) -> None:
    """Write the picture: forces, stiffness, stretched bonds, drift and cost.

    Parameters
    ----------
    report : DistillationReport
        What was measured.
    summary : dict
        Its summary.
    path : Path
        A PNG file.
    """
    figure = Figure(figsize=(15, 13.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr, call-arg]
    figure.suptitle(report.title, fontsize=17, fontweight="bold")
    rows: Any = figure.subfigures(3, 1)
    top, middle = rows[0].subplots(1, 3), rows[1].subplots(1, 3)
    panels.parity(top[0], report.forces)
    panels.errors_by_element(top[1], summary)
    panels.tail(top[2], report.forces)
    constants, hydrogen = report.constants, report.constants.to_hydrogen
    for axes, what, chosen in (
        (middle[0], "X–H", hydrogen),
        (middle[1], "heavy", ~hydrogen),
    ):
        panels.force_constants(axes, constants, chosen, what)
    panels.drift(middle[2], report.drifts, HEATING_FRICTION_PER_PS)
    left, right = rows[2].subfigures(1, 2, width_ratios=(2, 1))
    _curves(left, report.curves)
    _cost(right.subplots(), report.teacher_ms, report.student_ms)
    with replacing(path) as part:
        figure.savefig(part, dpi=110, format="png")


def _curves(figure: SubFigure, curves: Sequence[StretchCurve]) -> None:
    """Small multiples of the stretch curves."""
    if not curves:
        axes = figure.subplots()
        axes.set_title("Stretched bonds", loc="left")
        panels.absent(axes, "no bond that can be stretched")
        return
    shown = sorted(curves, key=lambda c: not len(unsafe_lengths(c)))
    shown = shown[:MOST_CURVES]
    columns = min(4, len(shown))
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
    for axes, curve in zip(grid.flat, shown, strict=False):
        _stretch(axes, curve)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper right", ncols=2)
    for axes in grid[:, 0]:
        axes.set_ylabel("force (eV/Å)")
    for axes in grid[-1]:
        axes.set_xlabel("bond length (Å)")


def _stretch(axes: Axes, curve: StretchCurve) -> None:
    """Force along one bond, teacher and student, holes marked."""
    holes = unsafe_lengths(curve)
    axes.set_title(f"Stretched {curve.bond}" + (": HOLE" if len(holes) else ""), loc="left")
    axes.axhline(0.0, color="0.8", lw=0.8)
    axes.plot(curve.lengths_A, curve.teacher_eV_A, "-", color=panels.TEACHER, lw=3.5, alpha=0.45)
    axes.plot([], [], "-", color=panels.TEACHER, lw=3.5, alpha=0.45, label="teacher")
    axes.plot(
        curve.lengths_A, curve.student_eV_A, "-", color=panels.STUDENT, lw=1.4, label="student"
    )
    marked = np.isin(curve.lengths_A, holes) & np.isfinite(curve.student_eV_A)
    axes.plot(curve.lengths_A[marked], curve.student_eV_A[marked], "o", color=panels.BAD, ms=5)
    # the well matters; the wall would flatten it
    depth = -min(curve.teacher_eV_A.min(), -1.0)
    axes.set_ylim(-1.6 * depth, 2.0 * depth)


def _cost(axes: Axes, teacher_ms: float, student_ms: float) -> None:
    """Time of a call, teacher and student."""
    axes.set_title("Cost of a call", loc="left")
    bars = axes.barh(
        ["student", "teacher"],
        [student_ms, teacher_ms],
        color=[panels.STUDENT, panels.TEACHER],
        height=0.5,
    )
    axes.bar_label(bars, [f"{student_ms:.3g} ms", f"{teacher_ms:.3g} ms"], padding=4)
    axes.set(xlabel="ms", xlim=(0, 1.3 * max(student_ms, teacher_ms)), ylim=(-0.6, 1.9))
    axes.text(
        0.03,
        0.96,
        f"teacher / student: {teacher_ms / student_ms:.0f}×",
        transform=axes.transAxes,
        va="top",
    )
