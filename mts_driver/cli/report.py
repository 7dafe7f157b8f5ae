"""``mts report``: one picture and one JSON file of what a run achieved."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mts_driver.analysis.statistics import with_error
from mts_driver.cli.console import plain_console

SLOWED = 1.0005
"""A slowdown by the noise below it is none."""


def report(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run, or its input file.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder of another run of the same system, e.g. with single steps."),
    ] = None,
    experiment: Annotated[
        Path | None, typer.Option(help="Measured g(r): text with r (Å) and g in two columns.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The picture (default: RUN_DIR/report.png)."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="The numbers (default: RUN_DIR/report.json).")
    ] = None,
    discard: Annotated[
        float, typer.Option(help="Share of the steps left out of averages as equilibration.")
    ] = 0.25,
    spectrum_ps: Annotated[
        float,
        typer.Option(
            help="Last part of the run whose velocities give the density of states, ps; 0: none.",
            min=0,
        ),
    ] = 10.0,
) -> None:
    """Show what a run gained and whether its physics held.

    Speed, temperatures, g(r), potential energy, X-H bonds and diffusion with their errors, beside
    those of a reference if one is given. Of a run that stores velocities also the density of states
    and their autocorrelation: as stored, or from frames that are filled in between those of
    --store-for-superres.
    Example: mts report run --reference single-step
    """
    from mts_driver.cli.stages import StageProgress
    from mts_driver.super_resolution.report import report as write

    console = plain_console()
    with StageProgress(console) as progress:
        made = write(
            run_dir,
            reference=reference,
            experiment=experiment,
            picture=picture,
            json_file=json_file,
            discard=discard,
            spectrum_ps=spectrum_ps,
            tell=console.print,
            report=progress,
        )
    console.print(_table(made.results))
    console.print(f"written: {made.picture}, {made.json}")


def _table(results: dict[str, Any]) -> Table:
    reference = results.get("reference")
    table = Table("", "run", *(["reference"] if reference else []))
    columns = [results] + ([reference] if reference else [])
    of_solute = [group for group in results["temperatures_K"] or {} if "solute" in group]
    groups = ["H", "heavy", *of_solute]
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "ns/day": lambda r: _form(r["ns_per_day"], ".3f"),
        "speed-up over 1 fs steps": lambda r: _form(r["speedup_vs_single_step"], ".2f"),
        **{f"T at O, {group} (K)": partial(_temperature, group) for group in groups},
        "potential energy (eV)": lambda r: (
            f"{_form(r['potential_energy_mean_eV'], '.3f')} ± "
            f"{_form(r['potential_energy_stderr_eV'], '.3f')}"
        ),
        "X-H mean (Å)": lambda r: _form((r["xh_bond_A"] or {}).get("mean"), ".4f"),
        "X-H longest (Å)": lambda r: _form((r["xh_bond_A"] or {}).get("max"), ".3f"),
        "X-H broken": lambda r: _form((r["xh_bond_A"] or {}).get("broken"), "d"),
        "max |F_T-F_S| (eV/Å)": lambda r: _form(r["max_force_difference_eV_A"], ".2f"),
        "steps with a hole": lambda r: _form(r["holes"], "d"),
        "hard frames": lambda r: _form(r["hard_frames"], "d"),
    }
    rows |= {f"g(r) peak, {pair}": partial(_peak, pair) for pair in results["radial_distributions"]}
    slowed = any((column["slowdown_by_noise"] or 1.0) > SLOWED for column in columns)
    for kind in results["diffusion"]:
        rows[f"D, {kind} (1e-5 cm²/s)"] = partial(_diffusion, kind)
        if slowed:
            rows[f"D, {kind}, without the noise's inertia"] = partial(_of_masses, kind)
    if results["motion"]:
        rows["spectrum's peaks (1/cm)"] = _spectrum
    for name, cell in rows.items():
        table.add_row(name, *(cell(column) for column in columns))
    if size := results["diffusion_finite_size"]:
        table.add_section()
        blanks = [""] * bool(reference)
        table.add_row("D without images, estimated", _finite_size(size), *blanks)
    if reference:
        table.add_section()
        for name, difference in _differences(results).items():
            table.add_row(name, difference, "")
    return table


def _differences(results: dict[str, Any]) -> dict[str, str]:
    """Return what separates a run from its reference, by name."""
    found = {
        "energy difference": (
            f"{_form(results.get('potential_energy_difference_in_stderr'), '+.1f')} stderr"
        )
    }
    for pair, deviation in results["radial_distribution_deviations"].items():
        found[f"g(r) difference, {pair}"] = (
            f"{_form(deviation['difference'], '+.3f')} at {_form(deviation['r_A'], '.2f')}"
            f" Å, {_form(deviation['in_stderr'], '+.1f')} stderr"
        )
    for kind, difference in results["diffusion_differences"].items():
        found[f"D difference, {kind}"] = (
            f"{_form(difference['difference_1e5_cm2_s'], '+.2g')}, "
            f"{_form(difference['in_stderr'], '+.1f')} stderr"
        )
    if (overlap := results.get("density_of_states_overlap")) is not None:
        error, noise = (
            results[f"density_of_states_overlap{end}"] for end in ("_stderr", "_of_noise_alone")
        )
        found["overlap of the spectra"] = (
            f"{overlap:.3f} ± {_form(error, '.3f')}, noise alone {_form(noise, '.3f')}"
        )
    return found


def _temperature(group: str, results: dict[str, Any]) -> str:
    return _form((results["temperatures_K"] or {}).get(group), ".1f")


def _peak(pair: str, results: dict[str, Any]) -> str:
    peak = (results["radial_distributions"].get(pair) or {}).get("first_peak") or {}
    return (
        f"{_form(peak.get('height'), '.2f')} ± {_form(peak.get('height_stderr'), '.2f')} at "
        f"{_form(peak.get('r_A'), '.2f')} Å"
    )


def _diffusion(kind: str, results: dict[str, Any]) -> str:
    found = results["diffusion"].get(kind)
    if found is None:
        return "-"
    low, high = found["interval_95_1e5_cm2_s"]
    text = with_error(found["diffusion_1e5_cm2_s"], found["stderr_1e5_cm2_s"])
    return f"{text}, 95 %: {low:.2g}–{high:.2g}" + (" (!)" if found["warnings"] else "")


def _of_masses(kind: str, results: dict[str, Any]) -> str:
    found = results["diffusion"].get(kind)
    if found is None or results["slowdown_by_noise"] is None:
        return "-"
    slowdown = results["slowdown_by_noise"]
    D = with_error(found["at_pace_of_masses_1e5_cm2_s"], slowdown * found["stderr_1e5_cm2_s"])
    return D + (f", {slowdown:.3f} × as much" if slowdown > SLOWED else "")


def _spectrum(results: dict[str, Any]) -> str:
    """Return the clearest peaks, from the slowest up."""
    if not results.get("motion"):
        return "-"
    return ", ".join(f"{peak:.0f}" for peak in results["motion"]["clearest_peaks_cm"])


def _finite_size(size: dict[str, Any]) -> str:
    viscosity = size["viscosity_of_water_mPa_s"]
    if viscosity is None:
        return f"D + {size['term_at_1_mPa_s_1e5_cm2_s']:.2g} / viscosity in mPa s"
    term = size["term_at_that_viscosity_1e5_cm2_s"]
    return f"D + {term:.2g} at {viscosity:.2f} mPa s of real water"


def _form(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
