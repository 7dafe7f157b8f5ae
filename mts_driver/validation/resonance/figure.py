"""The picture of a scan: how everything that matters depends on the outer step."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mts_driver.files import replacing

COLORS = ("#7a7a7a", "#1f5fa8", "#d2691e", "#2e8b57", "#8b3a8b")


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the picture of a `mts_driver.validation.resonance.scan.scan`."""
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    axes = figure.subplots(2, 4).T.ravel()
    setups = list(dict.fromkeys((row["hmr"], row["friction"]) for row in found["scan"]))
    series = [
        (_label(*setup, found["friction_per_ps"]), COLORS[k % len(COLORS)], _rows(found, setup))
        for k, setup in enumerate(setups)
    ]
    target, reference = found["temperature_K"], found["reference"]
    for panel, name, title in ((axes[0], "H", "hydrogens"), (axes[1], "heavy", "heavy atoms")):
        panel.set_title(f"T of {title} at O (K)")
        panel.axhline(target, color="0.8", lw=0.8)
        _plot(panel, series, f"T_{name}", f"T_{name}_error")
        panel.set_ylim(max(0, target - 40), target + 100)
    axes[2].set_title("Predicted heating (K)")
    axes[2].axhline(0, color="0.8", lw=0.8)
    _plot(axes[2], series, "predicted_heating_K")
    axes[2].set_yscale("symlog", linthresh=3)
    axes[3].set_title("X–H variance over single steps")
    axes[3].axhline(1, color="0.8", lw=0.8)
    _plot(axes[3], series, "xh_var_ratio", "xh_var_ratio_error")
    axes[4].set_title("Shift of the mean X–H length (mÅ)")
    axes[4].axhline(0, color="0.8", lw=0.8)
    _plot(axes[4], series, "xh_mean", shift=reference["xh_mean"] or 0.0, scale=1e3)
    axes[5].set_title("Speed over single steps")
    _plot(axes[5], series, "speedup")
    axes[6].set_title("Diffusion over single steps")
    axes[6].axhline(1, color="0.8", lw=0.8)
    if any(row["diffusion_ratio"] for row in found["scan"]):
        _plot(axes[6], series, "diffusion_ratio")
    else:
        _absent(axes[6])
    for panel in (axes[1], axes[3], axes[5]):
        panel.set_xlabel("outer step (fs)")
    axes[6].set_xlabel("outer step (fs)")
    _vibrations(axes[7], found, series)
    axes[0].legend(frameon=False, fontsize=8, title="filled: safe", title_fontsize=8)
    step = found["recommended_outer_fs"]
    more = found["recommended_for_sampling_outer_fs"]
    said = "no outer step of the scan is safe" if step is None else f"safe up to {step:g} fs"
    if more is not None and more != step:
        said += f", with friction on hydrogens up to {more:g} fs"
    figure.suptitle(f"{found['student']} for {found['teacher']}, {found['atoms']} atoms: {said}")
    with replacing(path) as part:
        figure.savefig(part, dpi=130)


def _vibrations(
    axes: Axes, found: dict[str, Any], series: list[tuple[str, str, list[dict[str, Any]]]]
) -> None:
    """Draw the density of states of hydrogens at the longest step of every setup that has one."""
    axes.set_title("Vibrations of hydrogens")
    for label, color, rows in [("", "k", [found["reference"]]), *series]:
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
    axes.text(0.5, 0.5, "the runs are too short", ha="center", transform=axes.transAxes)


def _rows(found: dict[str, Any], setup: tuple[float, float]) -> list[dict[str, Any]]:
    return [row for row in found["scan"] if (row["hmr"], row["friction"]) == setup]


def _label(mass: float, friction: float, of_all: float) -> str:
    name = f"H of {mass:g} Da" if mass else "natural masses"
    return name if friction == of_all else f"{name}, {friction:g}/ps on H"


def _plot(
    axes: Axes,
    series: list[tuple[str, str, list[dict[str, Any]]]],
    value: str,
    error: str = "",
    *,
    shift: float = 0.0,
    scale: float = 1.0,
) -> None:
    """Draw a line for each setup; filled where a point is safe, open where it is not.

    Runs that blew up are left out: their numbers would hide those of all others.
    """
    for label, color, every in series:
        rows = [row for row in every if not row["blown_up"]]
        x = np.array([row["outer_fs"] for row in rows])
        y = np.array([np.nan if row[value] is None else row[value] for row in rows], float)
        y = scale * (y - shift)
        bars = scale * np.array([row.get(error) or 0.0 for row in rows])
        axes.errorbar(x, y, bars, color=color, lw=1.2, capsize=2, label=label)
        safe = np.array([row["safe"] for row in rows], bool)
        axes.plot(x[safe], y[safe], "o", color=color, ms=5)
        axes.plot(x[~safe], y[~safe], "o", color=color, ms=5, mfc="white")
