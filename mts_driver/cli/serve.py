"""``mts serve``: a driver for i-PI (or any server that speaks its protocol)."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live


def serve(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="so3lr, student:FILE (or student:water, which is packaged), or "
            "ase:MODULE:CALLABLE?key=value.",
        ),
    ],
    structure: Annotated[
        Path, typer.Option(help="Structure with the server's atoms, in the server's order.")
    ],
    address: Annotated[
        str,
        typer.Option(help="The <address> of the <ffsocket>: a name (unix, shm) or HOST:PORT."),
    ] = "",
    zmq: Annotated[
        str,
        typer.Option(
            help="Listen over ZeroMQ instead, at ipc:///PATH or tcp://127.0.0.1:PORT; takes whole "
            "inner loops."
        ),
    ] = "",
    mode: Annotated[str, typer.Option(help="unix, inet or shm, as in the <ffsocket>.")] = "unix",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:0.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 takes all cores.", min=0)] = 0,
    prefix: Annotated[
        str, typer.Option(help="Prefix of unix sockets (i-PI's sockets_prefix).")
    ] = "/tmp/ipi_",
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for the server; 0 waits for ever.", min=0)
    ] = 600.0,
    stats: Annotated[
        Path | None, typer.Option(help="JSON file for the number and time of calls.")
    ] = None,
    quiet: Annotated[bool, typer.Option(help="Print only errors.")] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Evaluate a model for i-PI: wait for the server, answer it, end when it ends.

    Example: mts serve so3lr --address teacher --structure start.extxyz
    """
    if parent:
        from mts_driver.drivers.lifeline import die_with_parent

        die_with_parent(parent)
    # SIGTERM unwinds the stack, so that sockets and statistics are closed properly
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # before torch is imported, which reads them once
    threads = threads or os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = str(threads)

    from mts_driver.drivers.stats import Stats
    from mts_driver.drivers.transport import Address
    from mts_driver.errors import UserError

    if bool(address) == bool(zmq):
        raise UserError("give either --address, of an <ffsocket>, or --zmq, where to listen.")
    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    target = None if zmq else Address.parse(address, mode, prefix=prefix)
    counters = Stats(spec, stats)
    evaluator = _load(spec, structure, device=device, dtype=dtype, threads=threads, stats=counters)
    if target is None:
        _serve_zmq(evaluator, zmq, spec, counters, console)
        return
    counters.enter("ready")
    with _progress(console, counters) as update:
        from mts_driver.drivers.client import serve as answer

        reason = answer(
            evaluator,
            target,
            model=spec,
            timeout=timeout,
            tell=lambda text: console.print(f"{spec}: {text}"),
            after_call=update,
        )
    counters.enter("done")
    farewell = "the server said exit" if reason == "exit" else "the server closed the connection"
    console.print(f"{spec}: {farewell}; {_rate(counters)}")


def _serve_zmq(evaluator: Any, address: str, spec: str, stats: Any, console: Console) -> None:
    """Answer over ZeroMQ until the process is told to end."""
    from mts_driver.errors import UserError

    try:
        from mts_driver.drivers.zmq_server import Server
    except ImportError as error:
        raise UserError(f"--zmq needs pyzmq ({error}): pip install 'mts-driver[zmq]'.") from error
    server = Server(evaluator, address, model=spec)
    stats.enter("ready")
    console.print(f"{spec}: listening at {address}")
    try:
        with _progress(console, stats) as update:
            server.serve(after_call=update)
    finally:
        server.close()
        stats.enter("done")
        console.print(f"{spec}: told to end; {_rate(stats)}")


def _load(spec: str, structure: Path, *, device: str, dtype: str, threads: int, stats: Any) -> Any:
    """Load the model and evaluate the structure, so that lists and kernels are built."""
    import torch

    from mts_driver.drivers.evaluator import Evaluator
    from mts_driver.potentials import load_potential
    from mts_driver.structures import read_structure
    from mts_driver.units import BOHR_A

    torch.set_num_threads(threads)
    atoms = read_structure(structure)
    potential = load_potential(spec, atoms.numbers.tolist(), device=device, dtype=dtype)
    evaluator = Evaluator(potential, len(atoms), stats=stats)
    cell = atoms.cell.array if atoms.pbc.any() else 0 * atoms.cell.array
    for _ in range(2):  # the second call is the first at full speed
        evaluator(atoms.positions[None] / BOHR_A, cell[None] / BOHR_A)
    stats.reset()
    return evaluator


class _progress:
    """A line that shows the rate on a terminal, and nothing elsewhere."""

    def __init__(self, console: Console, stats: Any) -> None:
        self.stats = stats
        self.live = Live(console=console, refresh_per_second=2, transient=True)
        self.shown = console.is_terminal and not console.quiet
        self.last = 0.0

    def __enter__(self) -> Any:
        if self.shown:
            self.live.start()
        return self.update

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.live.stop()

    def update(self) -> None:
        now = time.monotonic()
        if self.shown and now - self.last > 0.5:
            self.last = now
            self.live.update(f"{self.stats.model}: {_rate(self.stats)}")


def _rate(stats: Any) -> str:
    numbers = stats.as_dict()
    calls, wall = numbers["calls"], max(numbers["wall_s"], 1e-9)
    mean = 1e3 * numbers["model_s"] / calls if calls else 0.0
    return f"{calls} calls, {calls / wall:.1f} calls/s, {mean:.2f} ms a call"


def _main() -> None:
    """Serve as a process of ``mts run``, without loading the other sub-commands."""
    from mts_driver.errors import UserError

    try:
        typer.run(serve)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    _main()
