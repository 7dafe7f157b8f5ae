"""``mts doctor``: what works on this machine, to be pasted into a bug report."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mts_driver.cli.console import plain_console


def doctor(
    atoms: Annotated[
        int, typer.Option(help="Size of the system that memory is compared with.", min=1)
    ] = 5000,
    device: Annotated[str, typer.Option(help="cpu or cuda:0, to time the models on.")] = "cpu",
    no_speed: Annotated[
        bool, typer.Option("--no-speed", help="Leave out the times of the models.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON file for the same.")
    ] = None,
) -> None:
    """Show versions, cores and threads, GPUs, sockets, memory, and how fast the models are here.

    Example: mts doctor --atoms 20000
    """
    from mts_driver.bench.doctor import Finding, examine
    from mts_driver.files import require_writable, write_json
    from mts_driver.potentials.devices import check_device

    check_device(device)
    if json_file is not None:
        require_writable(json_file, name=f"--json {json_file}")
    console, found = plain_console(), list[Finding]()
    for one in examine(atoms=atoms, speed=not no_speed, device=device):
        if not found or found[-1].topic != one.topic:
            console.print(f"{one.topic}:")
        console.print(f"  {one.name:24}{one.value}")
        if one.remedy:
            console.print(f"  {'':24}-> {one.remedy}")
        found.append(one)
    remedies = sum(bool(one.remedy) for one in found)
    console.print("nothing to mend" if not remedies else f"{remedies} lines have a remedy (->)")
    if json_file is not None:
        write_json(json_file, [asdict(one) for one in found])
