"""The picture of a scan: how everything that matters depends on the outer step."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mts_driver.files import replacing
from mts_driver.validation.resonance.judge import HEATING_K
from mts_driver.validation.resonance.points import Setup

NATURAL, HIGH_PASS, CONSTRAINED = ("#7a7a7a", "o"), ("#2e8b57", "s"), ("#8b3a8b", "D")
BOTH = ("#d1478c", "P")
OTHERS = (("#1f5fa8", "o"), ("#d2691e", "^"), ("#c2a000", "v"), ("#00a0a0", "<"))
"""Colour and marker of a line."""
APART_FS = 0.08
"""Between lines, whose error bars would cover one another."""


class _Line(NamedTuple):
    label: str
    color: str
    marker: str
    rows: list[dict[str, Any]]


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the picture of a `mts_driver.validation.resonance.scan.scan`."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    axes = figure.subplots(2, 4).T.ravel()
    lines = _lines(found)
    target, reference = found["temperature_K"], found["reference"]
    for panel, name, title in ((axes[0], "H", "hydrogens"), (axes[1], "heavy", "heavy atoms")):
        panel.set_title(f"T of {title} at O (K)")
        panel.axhline(target, color="0.8", lw=0.8)
        _plot(panel, lines, f"T_{name}", f"T_{name}_error")
        panel.set_ylim(max(0, target - 40), target + 100)
    axes[2].set_title("Predicted heating (K)")
    axes[2].axhspan(-HEATING_K, HEATING_K, color="0.93", lw=0)
    _plot(axes[2], lines, "predicted_heating_K")
    axes[2].set_yscale("symlog", linthresh=HEATING_K)
    axes[3].set_title("X–H variance over single steps")
    axes[3].axhline(1, color="0.8", lw=0.8)
    _plot(axes[3], lines, "xh_var_ratio", "xh_var_ratio_error")
    axes[4].set_title("Shift of the mean X–H length (mÅ)")
    axes[4].axhline(0, color="0.8", lw=0.8)
    _plot(axes[4], lines, "xh_mean", shift=reference["xh_mean"] or 0.0, scale=1e3)
    axes[5].set_title("Speed over single steps")
    _plot(axes[5], lines, "speedup")
    axes[6].set_title("D over single steps (rough)")
    if any(row["diffusion_ratio"] for row in found["scan"]):
        axes[6].axhline(1, color="0.8", lw=0.8)
        _plot(axes[6], lines, "diffusion_ratio", "diffusion_ratio_error")
    else:
        _absent(axes[6])
    for panel in (axes[1], axes[3], axes[5], axes[6]):
        panel.set_xlabel("outer step (fs)")
    _vibrations(axes[7], found, lines)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False,
        title="filled: safe; open: not", title_fontsize=9, fontsize=9,
    )  # fmt: skip
    figure.suptitle("\n".join(_said(found)), fontsize=11)
    with replacing(path) as part:
        figure.savefig(part, dpi=130)


def _said(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['student']} for {found['teacher']}, {found['atoms']} atoms"
    best, sampling = found["recommended"]["dynamics"], found["recommended"]["sampling"]
    if best is None:
        yield "no outer step of the scan is safe for dynamics"
    else:
        yield f"for dynamics: mts prepare {best['options']}"
    if sampling is not None and sampling != best:
        yield f"for sampling: mts prepare {sampling['options']}"


def _lines(found: dict[str, Any]) -> list[_Line]:
    others = itertools.cycle(OTHERS)
    lines = []
    for setup in dict.fromkeys(map(Setup.of, found["scan"])):
        if setup.high_pass:
            color, marker = BOTH if setup.constrained else HIGH_PASS
        elif setup.constrained:
            color, marker = CONSTRAINED
        else:
            color, marker = next(others) if setup.hmr else NATURAL
        rows = [row for row in found["scan"] if Setup.of(row) == setup]
        lines.append(_Line(setup.label(found["friction_per_ps"]), color, marker, rows))
    return lines


def _vibrations(axes: Axes, found: dict[str, Any], lines: list[_Line]) -> None:
    """Draw the density of states of hydrogens at the longest step of every line that has one."""
    axes.set_title("Vibrations of hydrogens")
    for label, color, _, rows in [_Line("", "k", "", [found["reference"]]), *lines]:
        seen = [row for row in rows if row["vdos"]]
        if seen:
            vdos, step = seen[-1]["vdos"], seen[-1]["outer_fs"]
            name = f"{step:g} fs" if label else f"single steps of {step:g} fs"
            x, y = vdos["wavenumber_cm1"], vdos["hydrogens"]
            axes.plot(x, y, color=color, lw=1.0, label=name)
    axes.set(xlabel="wavenumber (1/cm)", ylabel="density of states", ylim=(0, None))
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    else:
        _absent(axes)


def _absent(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "the runs are too short", ha="center", transform=axes.transAxes)


def _plot(
    axes: Axes,
    lines: list[_Line],
    value: str,
    error: str = "",
    *,
    shift: float = 0.0,
    scale: float = 1.0,
) -> None:
    """Draw a line for each setup; filled where a point is safe, open where it is not.

    Runs that blew up are left out: their numbers would hide those of all others.
    """
    for number, (label, color, marker, every) in enumerate(lines):
        rows = [row for row in every if not row["blown_up"]]
        x = np.array([row["outer_fs"] for row in rows]) + APART_FS * (
            number - 0.5 * (len(lines) - 1)
        )
        y = np.array([np.nan if row[value] is None else row[value] for row in rows], float)
        y = scale * (y - shift)
        bars = scale * np.array([row.get(error) or 0.0 for row in rows])
        safe = np.array([row["safe"] for row in rows], bool)
        axes.errorbar(x, y, bars, color=color, lw=1.2, capsize=2)
        axes.plot(x[safe], y[safe], marker, color=color, ms=5)
        axes.plot(x[~safe], y[~safe], marker, color=color, ms=5, mfc="white")
        axes.plot([], [], f"-{marker}", color=color, ms=5, lw=1.2, label=label)
