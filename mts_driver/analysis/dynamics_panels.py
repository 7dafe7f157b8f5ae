"""The panels of a report's picture that show how atoms move."""

import re
import textwrap
from typing import Any

from matplotlib.axes import Axes

from mts_driver.analysis.dynamics.diffusion import Diffusion
from mts_driver.analysis.dynamics.motion import Motion
from mts_driver.analysis.dynamics.velocities import HIGHEST_CM
from mts_driver.analysis.panels import REFERENCE, RUN, absent
from mts_driver.analysis.results import Run
from mts_driver.analysis.statistics import with_error

MOST_KINDS = 3
"""Of molecules in the panel of their diffusion."""
MARKERS = "os^"
ELEMENTS = {"H": "0.45", "O": "#c8102e", "C": "k", "N": "#2850c8", "S": "#b8900a", "Cl": "#2a9d3a"}
_A2_PS = 10.0


def mean_squared_displacements(axes: Axes, run: Run, reference: Run | None) -> None:
    """Mean squared displacements with the lines that diffusion coefficients are from."""
    axes.set_title("Diffusion")
    if not run.diffusion:
        absent(axes, _wrapped(run.no_diffusion or ""))
        return
    lines = []
    for (kind, found), marker in zip(run.diffusion.items(), MARKERS, strict=False):
        theirs = reference.diffusion.get(kind) if reference else None
        for one, color in ((theirs, REFERENCE), (found, RUN)):
            if one is not None:
                _displacements(axes, one, color, marker)
        lines.append((_named(kind, found, run), RUN))
        if theirs is not None and reference is not None:
            lines.append((_named(kind, theirs, reference), REFERENCE))
    slowed = any(one and (one.folder.slowdown or 1.0) > 1.0 for one in (run, reference))
    unit = "D in 1e-5 cm²/s" + (" (without the noise's inertia)" if slowed else "")
    for k, (text, color) in enumerate([(unit, "0.4"), *lines]):
        place = (0.03, 0.96 - 0.075 * k)
        axes.text(*place, text, transform=axes.transAxes, va="top", color=color)
    if any(found.warnings for found in run.diffusion.values()):
        doubtful = next(found for found in run.diffusion.values() if found.warnings)
        text = "\n".join(_wrapped(warning) for warning in doubtful.warnings)
        axes.text(
            0.97, 0.03, text, transform=axes.transAxes, ha="right", color="C3", fontsize="small"
        )
    axes.set(xlabel="lag (ps)", ylabel="mean squared displacement (Å²)", xscale="log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, 4 * high)


def _named(kind: str, found: Diffusion, run: Run) -> str:
    text, slowdown = f"{_formula(kind)}: {with_error(found.D, found.stderr)}", run.folder.slowdown
    if slowdown is None or slowdown == 1.0:
        return text
    return f"{text} ({with_error(slowdown * found.D, slowdown * found.stderr)})"


def _displacements(axes: Axes, found: Diffusion, color: str, marker: str) -> None:
    axes.errorbar(
        found.lags_ps, found.msd_A2, found.msd_stderr_A2, fmt=marker, color=color, ms=3, lw=0.8,
        mfc="white",
    )  # fmt: skip
    fitted = found.lags_ps[found.lags_ps >= found.start_ps * (1 - 1e-9)]
    axes.plot(fitted, 6 * found.D / _A2_PS * fitted + found.offset_A2, color=color, lw=1.5)


def _formula(kind: str) -> str:
    return re.sub(r"(\d+)", r"$_{\1}$", kind)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 46))


def density_of_states(
    axes: Axes, motion: Motion, reference: Motion | None, results: dict[str, Any]
) -> None:
    """Density of states with its error, up to where nothing vibrates."""
    axes.set_title("Density of states, all atoms")
    for one, color in ((reference, REFERENCE), (motion, RUN)):
        if one is None:
            continue
        found = one.density_of_states
        x, y, error = found.wavenumbers_cm, 1e3 * found.density, 1e3 * found.stderr
        axes.fill_between(x, y - error, y + error, color=color, alpha=0.25, lw=0)
        axes.plot(x, y, color=color, lw=1)
    _wavenumbers(axes, motion)
    text = [f"{motion.picoseconds:.3g} ps, {motion.frames}"]
    overlap, stderr, noise = (
        results.get(f"density_of_states_overlap{end}") for end in ("", "_stderr", "_of_noise_alone")
    )
    if overlap is not None:
        text.append(f"overlap {100 * overlap:.1f} %" + (f" ± {100 * stderr:.1f}" if stderr else ""))
    if noise is not None:
        text.append(f"noise alone {100 * noise:.1f} %")
    _note(axes, "\n".join(text))


def by_element(axes: Axes, motion: Motion, reference: Motion | None) -> None:
    """Density of states by element; the reference's is dashed."""
    axes.set_title("Density of states by element")
    for one, style in ((reference, "--"), (motion, "-")):
        if one is None:
            continue
        found = one.density_of_states
        for k, (element, density) in enumerate(found.by_element.items()):
            color = ELEMENTS.get(element, f"C{k}")
            label = element if one is motion else None
            axes.plot(found.wavenumbers_cm, 1e3 * density, style, color=color, lw=1, label=label)
    if reference is not None:
        axes.plot([], [], "k--", lw=1, label="reference")
    axes.legend(frameon=False, loc="upper right")
    _wavenumbers(axes, motion)


def _wavenumbers(axes: Axes, motion: Motion) -> None:
    found = motion.density_of_states
    last = found.wavenumbers_cm[found.density > 0.01 * found.density.max()][-1]
    axes.set(xlabel="wavenumber (1/cm)", ylabel="density (0.001 cm)")
    axes.set(xlim=(0, min(HIGHEST_CM, 1.2 * last)), ylim=(0, None))


def autocorrelation(axes: Axes, motion: Motion, reference: Motion | None) -> None:
    """Autocorrelation of velocities with its error, and by element."""
    axes.set_title("Autocorrelation of velocities")
    axes.axhline(0.0, color="0.85", lw=0.8)
    for k, (element, values) in enumerate(motion.autocorrelation_by_element.items()):
        color = ELEMENTS.get(element, f"C{k}")
        axes.plot(motion.lags_fs, values, color=color, lw=0.8, alpha=0.6, label=element)
    for one, color in ((reference, REFERENCE), (motion, RUN)):
        if one is not None:
            y, error = one.autocorrelation, one.autocorrelation_stderr
            axes.fill_between(one.lags_fs, y - error, y + error, color=color, alpha=0.25, lw=0)
            axes.plot(one.lags_fs, y, color=color, lw=1.3)
    axes.legend(frameon=False, loc="upper right", ncols=3)
    axes.set(xlabel="lag (fs)", ylabel="of mass-weighted velocities", xlim=(0, motion.lags_fs[-1]))


def _note(axes: Axes, text: str) -> None:
    axes.text(
        0.97, 0.97, text, transform=axes.transAxes, va="top", ha="right", color="0.4",
        fontsize="small",
    )  # fmt: skip
