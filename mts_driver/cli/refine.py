"""``mts refine``: fit a model to what its own trajectories show."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from mts_driver.cli.console import plain_console
from mts_driver.errors import UserError


def refine(
    model: Annotated[
        str, typer.Argument(help="Where to start: student:FILE (or water) or classical:FILE.")
    ],
    structure: Annotated[Path, typer.Argument(help="Any file that ASE reads; its last frame.")],
    output: Annotated[Path, typer.Option(help="Folder for the refined model and the report.")] = (
        Path("refined")
    ),
    teacher: Annotated[
        str | None,
        typer.Option(help="Model whose own trajectory is the target: so3lr, or any other."),
    ] = None,
    fit_to: Annotated[
        str, typer.Option(help="Of the teacher's trajectory: rdf,bonds,spectrum.")
    ] = "rdf,bonds",
    rdf_file: Annotated[
        Path | None,
        typer.Option(
            "--rdf",
            help="Measured g(r) of water: columns r, g_OO, error, g_OH, error, g_HH, error.",
        ),
    ] = None,
    vaporisation_kJ_mol: Annotated[
        float | None,
        typer.Option("--vaporisation-kJ-mol", help="Measured enthalpy of vaporisation, kJ/mol."),
    ] = None,
    diffusion: Annotated[
        list[str] | None,
        typer.Option(help="FORMULA=D of molecules, 1e-9 m²/s, as O2=2.0; may be repeated."),
    ] = None,
    elastic_GPa: Annotated[
        str | None,
        typer.Option("--elastic-GPa", help="C11,C12,C44 of a cubic crystal at rest, GPa."),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(help="Names of the parameters to fit, with commas (default: all)."),
    ] = None,
    updates: Annotated[
        int | None,
        typer.Option(help="Of the parameters, in all (default: 50; of a student 12).", min=1),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Updates are measured by: parameters (their sizes), or ensemble (by how much "
            "energies of states change, kT), which is the default for students."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Length of an update (default: 0.02 of parameters; of a student 0.9 kT)."
        ),
    ] = None,
    decay: Annotated[
        float, typer.Option(help="Length of the last update over that of the first.")
    ] = 0.3,
    picoseconds: Annotated[
        float | None,
        typer.Option("--ps", help="Trajectory of an update, ps (default: 1; of a student 8)."),
    ] = None,
    settle_ps: Annotated[
        float | None,
        typer.Option(help="Before it, without a gradient, ps (default: 0.1; of a student 0.5)."),
    ] = None,
    timestep_fs: Annotated[float, typer.Option(help="Of the model alone, fs.")] = 1.0,
    sample_fs: Annotated[float, typer.Option(help="Between snapshots of averages, fs.")] = 100.0,
    follow_fs: Annotated[
        float, typer.Option(help="Between snapshots for spectra and diffusion, fs.")
    ] = 2.0,
    temperature_K: Annotated[float, typer.Option("--temperature-K", help="Temperature, K.")] = (
        300.0
    ),
    friction_per_ps: Annotated[
        float | None,
        typer.Option(help="Of the Langevin thermostat, 1/ps (default: 1; of a student 5)."),
    ] = None,
    window_fs: Annotated[str, typer.Option(help="Lags between which D is read, fs.")] = "300,1000",
    replicas: Annotated[
        int | None,
        typer.Option(
            help="Trajectories side by side; one alone biases the loss (default: 2; of a student "
            "8).",
            min=1,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="reversible (the default), or reweighting of the ensemble (of a student), which "
            "fits averages only."
        ),
    ] = None,
    truncation_fs: Annotated[
        float | None,
        typer.Option(help="Responsibility for a snapshot ends so long before it, fs."),
    ] = None,
    growth_bound: Annotated[
        float | None,
        typer.Option(help="Bound on the growth of gradients on the way back."),
    ] = None,
    longest_gradient: Annotated[
        float, typer.Option(help="Bound on a gradient's norm, in medians of those before.")
    ] = 2.0,
    blocks: Annotated[
        int | None,
        typer.Option(
            help="Trajectories that models and teacher are judged by (default: 8; of a student 2).",
            min=2,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of velocities and noise.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Start anew.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Fit a model until its own trajectories show what they should.

    A student is refined until its g(r) and X–H lengths are those of its teacher (--teacher); a
    classical model is fitted to experiment (--rdf, --vaporisation-kJ-mol, --diffusion), or to
    another model. Gradients come from running each trajectory backwards, at a memory that does not
    grow with its length, or, of averages, from reweighting its states. A killed refinement goes on
    at the same command, and more --updates make it longer.

    Example: mts refine classical:water3.json water64.xyz --rdf soper_2013_water_rdf.txt
    --vaporisation-kJ-mol 46.9
    """
    from mts_driver.cli.stages import StageProgress
    from mts_driver.refinement.refine import refine as run
    from mts_driver.refinement.settings import RefineSettings

    given = {
        "friction_per_ps": friction_per_ps,
        "picoseconds": picoseconds,
        "settle_ps": settle_ps,
        "replicas": replicas,
        "updates": updates,
        "metric": metric,
        "learning_rate": learning_rate,
        "method": method,
        "blocks": blocks,
    }
    settings = RefineSettings.for_model(
        model,
        **{name: value for name, value in given.items() if value is not None},
        timestep_fs=timestep_fs,
        temperature_K=temperature_K,
        sample_fs=sample_fs,
        follow_fs=follow_fs,
        window_fs=_window(window_fs),
        decay=decay,
        truncation_fs=truncation_fs,
        growth_bound=growth_bound,
        seed=seed,
        longest_gradient=longest_gradient,
    )
    console = plain_console(quiet=quiet)
    with StageProgress(console) as progress:
        found = run(
            model,
            structure,
            output=output,
            teacher=teacher,
            fit_to=[part for part in fit_to.split(",") if part],
            rdf_file=rdf_file,
            vaporisation_kJ_mol=vaporisation_kJ_mol,
            diffusion=[_diffusion(text) for text in diffusion or ()],
            elastic_GPa=_constants(elastic_GPa),
            train=[part for part in (train or "").split(",") if part],
            settings=settings,
            force=force,
            command=shlex.join(["mts", *sys.argv[1:]]),
            tell=console.print,
            report=progress,
        )
    console.print(_table(found.results))
    picture = f", {found.picture}" if found.picture else f" ({found.no_picture})"
    console.print(f"written: {found.model}{picture}")


def _table(results: dict[str, Any]) -> Table:
    table = Table(title=f"{results['model']}, {len(results['history'])} updates", box=box.SIMPLE)
    table.add_column("observable")
    for column in ("target", "before", "after", "off before", "after", "in errors", "after"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    for name, row in results["observables"].items():
        before, after = row["before"], row["after"]
        table.add_row(
            name,
            _shown(before.get("target")),
            _shown(before.get("value")),
            _shown(after.get("value")),
            _shown(before["off"]),
            _shown(after["off"]),
            _shown(before["off_in_errors"]),
            _shown(after["off_in_errors"]),
            row["unit"],
        )
    return table


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _diffusion(text: str) -> tuple[str, float]:
    formula, _, value = text.partition("=")
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not (formula and found > 0):
        raise UserError(
            f"--diffusion {text!r}: give FORMULA=D with D in 1e-9 m²/s, such as O2=2.0."
        )
    return formula, found


def _constants(text: str | None) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"--elastic-GPa {text!r}: give C11,C12,C44, as 1079,124,578.") from None


def _window(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--window-fs {text!r}: give two lags in fs, such as 300,1000.") from None
    return low, high
