"""``mts molecules``: the starting structures of the general student's training set."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mts_driver.cli.console import plain_console

KIND_NAMES = "g2, amino-acids, dipeptides, solutes, contacts, solutions, ions"


def molecules(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The systems to write, NAME.extxyz.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of conformers, contacts and packings.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"A kind, can be given again (default: all of {KIND_NAMES})."),
    ] = None,
    spice: Annotated[
        Path | None,
        typer.Option(help="Take molecules from a SPICE-2 HDF5 file instead of making any."),
    ] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(help="Of the SPICE file, can be given again (default: all of it)."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Molecules to draw from the SPICE file.")] = 300,
    conformations: Annotated[int, typer.Option(min=1, help="Of each of these molecules.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing OUTPUT.")] = False,
) -> None:
    """Build molecules, contacts, solutions and ion pairs, one neutral system a frame.

    Small molecules of a kind share a system, far apart. `mts distill` then runs the teacher's
    dynamics on each system. With --spice the molecules come from that file.
    """
    from ase.io import write

    from mts_driver.distillation.starting_systems.molecules import (
        ELEMENTS,
        KINDS,
        starting_structures,
    )
    from mts_driver.distillation.starting_systems.packing import gas
    from mts_driver.distillation.starting_systems.spice import read_spice
    from mts_driver.errors import UserError
    from mts_driver.files import check_output, replacing

    check_output(output, name="--output", suffix=".extxyz", force=force)
    if spice is not None and only:
        raise UserError("--only names kinds that are made here: leave it out with --spice.")
    kinds = list(dict.fromkeys(only)) if only else list(KINDS)
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise UserError(f"--only {unknown[0]} is unknown: choose from {', '.join(KINDS)}.")
    console = plain_console()
    table = Table("kind", "systems", "atoms", "of a system")
    systems = []
    for kind in ["spice"] if spice is not None else kinds:
        if spice is not None:
            drawn = read_spice(
                spice,
                elements=ELEMENTS,
                subsets=subset,
                molecules=count,
                conformations=conformations,
                seed=seed,
                tell=console.print,
            )
            made = gas(drawn, name="spice")
        else:
            made = starting_structures(kind, seed=seed)
        sizes = [len(atoms) for atoms in made]
        table.add_row(kind, str(len(made)), str(sum(sizes)), f"{min(sizes)}–{max(sizes)}")
        systems += made
    with replacing(output) as part:
        write(part, systems, format="extxyz")
    console.print(table)
    console.print(f"written: {output}, {len(systems)} systems")
