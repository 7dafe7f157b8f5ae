"""``mts superres``: the frames between stored ones."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from mts_driver.cli.console import plain_console
from mts_driver.errors import UserError

ACTIONS = {
    "train": "a model on trajectories with all frames (a network), or on stored ones (a student)",
    "apply": "fill the gaps of a run",
    "molecules": "run the molecules of MD17, to train on and to measure with",
    "bench": "how far filled frames are off, for these molecules and all models",
}


def superres(
    action: Annotated[
        str,
        typer.Argument(help="; ".join(f"{name}: {what}" for name, what in ACTIONS.items()) + "."),
    ],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Trajectories: .npz as MD17's, frames that ASE reads (with momenta and forces), "
            "or folders of runs with --store-for-superres. For bench and molecules none."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="train: the model, .safetensors. apply: .extxyz, .xyz, or (MDAnalysis) "
            ".dcd, .h5md, .xtc, .trr. molecules and bench: the folder of trajectories.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="train: student (default), lstm, rnn, ode or hamiltonian. apply: a file, a "
            "packaged student, linear, cubic, quintic, or replay of a run with all outer steps "
            "(default: replay, or else the student of the run). "
            "bench: several of all, with commas."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--from", help="train: student to start from (default: none).")
    ] = None,
    gap_fs: Annotated[
        float | None, typer.Option(help="train: from one stored frame to the next, fs.")
    ] = None,
    every_fs: Annotated[
        float | None, typer.Option(help="apply: between the frames that are written, fs.")
    ] = None,
    timestep_fs: Annotated[
        float | None,
        typer.Option(help="Between the frames of a file that does not say it, fs."),
    ] = None,
    one_way: Annotated[
        bool, typer.Option("--one-way", help="train: a network that fills from the left only.")
    ] = False,
    window: Annotated[
        int,
        typer.Option(min=1, help="train: frames that a network is shown at each end."),
    ] = 1,
    hidden: Annotated[int, typer.Option(min=1, help="train: width of a network.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="train: of a network.")] = 3e-3,
    test_share: Annotated[
        float, typer.Option(help="train: last part of each trajectory, to test with.")
    ] = 0.2,
    minutes: Annotated[float | None, typer.Option(help="train: the budget (default: 5).")] = None,
    updates: Annotated[
        int | None,
        typer.Option(min=1, help="train: the budget, instead of minutes. bench: of all models."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="apply: what the atoms moved in, for --teacher-calls (default: that of the run). "
            "molecules: so3lr by default."
        ),
    ] = None,
    teacher_calls: Annotated[
        int, typer.Option(min=0, help="apply: of the teacher, in each gap; 1, 3 and 5 pay.")
    ] = 0,
    leave_out: Annotated[
        bool,
        typer.Option("--leave-out", help="apply: leave gaps open that cannot be of one run."),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="molecules, bench: a molecule, can be given again (default: all)."),
    ] = None,
    gaps: Annotated[
        str, typer.Option(help="bench: lengths in frames, with commas.")
    ] = "5,10,20,40,80",
    picoseconds: Annotated[
        float, typer.Option("--ps", help="molecules: of each trajectory, ps.")
    ] = 5.0,
    replicas: Annotated[int, typer.Option(min=1, help="molecules: trajectories of each.")] = 4,
    temperature_K: Annotated[
        float, typer.Option("--temperature-K", help="molecules: temperature, K.")
    ] = 500.0,
    device: Annotated[str, typer.Option(help="apply: of the models, cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="apply: of a student.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and velocities.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="The numbers of train, apply or bench.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Fill in the frames between those that a run has stored.

    A student knows the forces in between: shots with it from both stored frames, mended by a
    spline, are one to two powers of ten nearer than the best spline, for systems of any size.
    Networks that learn one molecule (Winkler et al. 2022) are there to compare with.

    Examples: mts superres apply run --every-fs 0.5 -o dense.extxyz

    mts superres train ethanol-nve-1.npz --gap-fs 10 -o ethanol.safetensors
    """
    if action not in ACTIONS:
        raise UserError(f"action={action!r} is not known: use {', '.join(ACTIONS)}.")
    todo = {"train": _train, "apply": _apply, "molecules": _molecules, "bench": _bench}[action]
    if bool(runs) != (action in ("train", "apply")):
        what = "give a trajectory" if not runs else "it takes no trajectory"
        raise UserError(f"runs={[str(run) for run in runs or ()]} for {action}: {what}.")
    if output is None:
        raise UserError(f"output is missing: {action} needs --output.")
    if json_file is not None:
        from mts_driver.files import check_output

        check_output(json_file, name="json_file")
    console = plain_console(quiet=quiet)
    if not console.is_terminal:
        console.width = 300  # a table in a file is not folded
    from mts_driver.cli.stages import StageProgress
    from mts_driver.files import write_json

    with StageProgress(console) as progress:
        rows, shown = todo(dict(locals()), progress)
    console.print(shown)
    if json_file is not None:
        write_json(json_file, rows)


def _train(given: dict[str, Any], report: Any) -> tuple[Any, Any]:
    from dataclasses import asdict

    from mts_driver.super_resolution.train import train

    names = ("gap_fs", "timestep_fs", "window", "hidden", "learning_rate", "test_share", "minutes")
    found = train(
        given["runs"],
        given["output"],
        model=given["model"] or "student",
        base=given["base"],
        both_ways=not given["one_way"],
        command=shlex.join(["mts", *sys.argv[1:]]),
        report=report,
        **{name: given[name] for name in (*names, "updates", "seed", "force")},
    )
    errors = {name: asdict(one) for name, one in found.errors.items()}
    if not found.errors:
        return {"model": str(found.file), "cost": found.cost}, f"written: {found.file}"
    table = Table(title=f"{found.file}: unseen gaps", box=box.SIMPLE)
    for column in ("model", "mean error (Å)", "worst (Å)", "gaps"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, one in found.errors.items():
        table.add_row(name, f"{one.mean_error_A:.1e}", f"{one.worst_error_A:.1e}", f"{one.gaps}")
    best, model = found.errors.get("quintic"), next(iter(found.errors))
    if best is not None and found.errors[model].mean_error_A >= best.mean_error_A:
        table.caption = "It does not beat the quintic spline, and is of no use."
    return {"model": str(found.file), "cost": found.cost, "errors": errors}, table


def _apply(given: dict[str, Any], report: Any) -> tuple[Any, Any]:
    from dataclasses import asdict

    from mts_driver.super_resolution.apply import apply

    if len(given["runs"]) > 1:
        raise UserError(f"runs: apply takes one trajectory, {len(given['runs'])} are given.")
    if given["every_fs"] is None:
        raise UserError("every_fs is missing: give the time between frames, such as 0.5.")
    names = (
        "every_fs",
        "model",
        "teacher",
        "teacher_calls",
        "timestep_fs",
        "leave_out",
        "device",
        "dtype",
    )
    found = apply(
        given["runs"][0],
        given["output"],
        tell=given["console"].print,
        report=report,
        **{name: given[name] for name in (*names, "force")},
    )
    rows = {"frames": found.frames, "model": found.model, "found": asdict(found.found)}
    return rows, f"written: {found.file}, {found.frames} frames by {found.model}"


def _molecules(given: dict[str, Any], report: Any) -> tuple[Any, Any]:
    from mts_driver.bench.nine_molecules import SMILES, make_trajectories

    files = make_trajectories(
        given["output"],
        given["only"] or tuple(SMILES),
        teacher=given["teacher"] or "so3lr",
        report=report,
        **{name: given[name] for name in ("picoseconds", "replicas", "temperature_K", "seed")},
    )
    return [str(file) for file in files], f"written: {len(files)} files in {given['output']}"


def _bench(given: dict[str, Any], report: Any) -> tuple[Any, Any]:
    from mts_driver.bench.super_resolution import MODELS, measure, shown
    from mts_driver.bench.super_resolution_figure import draw

    models = [part for part in (given["model"] or "").split(",") if part] or list(MODELS)
    try:
        lengths = [int(part) for part in given["gaps"].split(",")]
    except ValueError:
        raise UserError(f"gaps={given['gaps']!r}: give whole numbers, as 5,10,20.") from None
    result = measure(
        given["output"],
        molecules=given["only"] or (),
        models=models,
        gaps=lengths,
        updates=given["updates"],
        report=report,
    )
    picture = given["output"] / "errors.png"
    draw(result["rows"], picture)
    given["console"].print(f"written: {picture}")
    return result, shown(result)
