"""``mts COMMAND --help``: options in panels, names never cut, types where there is room."""

import re
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

PANELS = {
    "Models": "--model --teacher --teacher-calls --student --from --structure --device --dtype "
    "--threads --workers --mpi --ranks",
    "Network": "--cutoff-A --channels --messages --hidden --direct --one-way --window",
    "Training": "--minutes --updates --metric --learning-rate --decay --train --frames "
    "--from-run --until-clean-ps --without --fragment-radius-A --test-share",
    "Goals": "--for --fit-to --rdf --vaporisation-kJ-mol --diffusion --elastic-GPa --window-fs "
    "--blocks",
    "Gradient": "--method --truncation-fs --growth-bound --longest-gradient",
    "Gaps": "--gap-fs --every-fs --gaps --leave-out --store-for-superres --spectrum-ps",
    "Time steps": "--outer-fs --timestep-fs --settle-ps --sample-fs --follow-fs --inner-fs "
    "--constrained-inner-fs --friction-outer-fs --constrained-outer-fs --rigid-outer-fs "
    "--hydrogen-mass-Da --steps --ps --stride --on-hole --baseline-steps",
    "Thermostat and ensemble": "--temperature-K --friction-per-ps --hydrogen-friction-per-ps "
    "--thermostat --high-friction-per-ps --high-pass --constrain-hydrogens --rigid-water "
    "--bond-lengths-A --pressure-bar --beads --teacher-beads --exchange-K",
    "Start": "--restart --velocities --minimise --equilibrate-ps --seed",
    "Molecules": "--only --spice --subset --count --conformations",
    "Measurement": (
        "--rounds --seconds --no-speed --atoms --replicas --reference --experiment --discard"
    ),
    "Model of many ranks": "--model-atoms --model-ranks --rank-speed --link-gb-s --latency-us",
    "Connection": "--address --zmq --mpi-name --mode --device-steps --prefix --timeout --reconnect "
    "--elsewhere",
    "Clients": "--client --keys --queue --batch --batch-wait-ms",
    "Output": "--output --json --work --stats --force --quiet",
}
"""Panels in their order: an option is in the same one in every command."""

_PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names.split()}
_BORDER = 4
_GAP = 2
_LONG = 32
"""Names of a switch that are longer take two lines."""


def show_help(command: Any, ctx: Any) -> None:
    """Print usage, description and parameters of a command.

    Parameters
    ----------
    command : TyperCommand
        What it takes.
    ctx : typer.Context
        Its context, for the usage.
    """
    console = Console(highlight=False)
    console.print(Text(f"\n{command.get_usage(ctx)}\n", style="bold"))
    for paragraph in (command.help or "").split("\n\n"):
        console.print(Text(" ".join(paragraph.split()) + "\n"))
    panels: dict[str, list[tuple[str, str, Text]]] = {"Arguments": []}
    panels |= {panel: [] for panel in [*PANELS, "Options"]}
    for parameter in command.get_params(ctx):
        if (record := parameter.get_help_record(ctx)) is not None:
            panels[panel_of(parameter)].append(_row(parameter, *record))
    for title, rows in panels.items():
        if rows:
            console.print(Panel(_table(rows, console.width), title=title, title_align="left"))


def panel_of(parameter: Any) -> str:
    """Return the title of the panel that a parameter is in; ``Options`` if none was chosen."""
    if parameter.param_type_name == "argument":
        return "Arguments"
    return next((_PANEL_OF[name] for name in parameter.opts if name in _PANEL_OF), "Options")


def _row(parameter: Any, names: str, text: str) -> tuple[str, str, Text]:
    """Return names, type and description of a parameter."""
    found = re.search(r" *(<.*>|[A-Z][A-Z ]*)$", names)
    kind = found.group(1) if found else ""
    names = names.removesuffix(found.group(0)) if found else names
    if len(names) > _LONG:
        names = re.sub(r"\s*/\s*", " /\n", names)
    kind = re.sub(r"list\[(.*)\]", r"\1", kind.lower()).replace(" range", "")
    shown = Text(" ".join(text.split()).replace("x>=", "≥"))
    shown.highlight_regex(r"(?<![\w-])--?[A-Za-z][\w-]*", "cyan")
    shown.highlight_regex(r"\[[^]]*\]$", "dim")
    return names, kind, shown


def _table(rows: list[tuple[str, str, Text]], width: int) -> Table:
    """Two columns: names, with types unless they would take half of the width, and descriptions."""
    longest = max(len(line) for names, kind, _ in rows for line in f"{names} {kind}".split("\n"))
    with_types = longest <= (width - _BORDER - _GAP) // 2
    table = Table.grid(padding=(0, _GAP, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for names, kind, text in rows:
        name = Text(names, style="bold cyan")
        if with_types and kind:
            name.append(f" {kind}", style="yellow")
        table.add_row(name, text)
    return table
