"""``mts report``: one picture and one JSON file of what a run achieved."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mts_driver.cli.console import plain_console


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
            help="Last part of a run with --store-for-superres that is filled in for its "
            "density of states, ps; 0: none.",
            min=0,
        ),
    ] = 10.0,
) -> None:
    """Show what a run gained and whether its physics held.

    Speed, temperatures, g(r), potential energy and X-H bonds with their errors, beside those of a
    reference if one is given; of a run with --store-for-superres also the density of states and
    the autocorrelation of velocities, from frames that are filled in between the stored ones.
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
    rows = {
        "ns/day": lambda r: _form(r["ns_per_day"], ".3f"),
        "speed-up over 1 fs steps": lambda r: _form(r["speedup_vs_single_step"], ".2f"),
        "T at O, H (K)": lambda r: _form((r["temperatures_K"] or {}).get("H"), ".1f"),
        "T at O, heavy (K)": lambda r: _form((r["temperatures_K"] or {}).get("heavy"), ".1f"),
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
        f"g(r) peak, {results['rdf_pair']}": lambda r: (
            f"{_form((r['rdf_first_peak'] or {}).get('height'), '.2f')} at "
            f"{_form((r['rdf_first_peak'] or {}).get('r_A'), '.2f')} Å"
        ),
    }
    for name, cell in rows.items():
        table.add_row(name, *(cell(column) for column in columns))
    if reference:
        deviation = results.get("rdf_max_deviation") or {}
        table.add_section()
        table.add_row(
            "energy difference",
            f"{_form(results.get('potential_energy_difference_in_stderr'), '+.1f')} stderr",
            "",
        )
        table.add_row(
            "largest g(r) difference",
            f"{_form(deviation.get('difference'), '+.3f')} at {_form(deviation.get('r_A'), '.2f')}"
            f" Å, {_form(deviation.get('in_stderr'), '+.1f')} stderr",
            "",
        )
    return table


def _form(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
