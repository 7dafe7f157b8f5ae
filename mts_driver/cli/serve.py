"""``mts serve``: a driver for i-PI (or any server that speaks its protocol)."""

import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mts_driver.cli.command import Command
from mts_driver.cli.console import plain_console
from mts_driver.cli.ending import ended_in_a_sentence
from mts_driver.cli.rate import RateLine, rate


def serve(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="so3lr, student:FILE (or student:water, which is packaged), "
            "ase:MODULE:CALLABLE?key=value, metatomic:FILE or classical:FILE.",
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
            help="Listen over ZeroMQ instead, at ipc:///PATH or tcp://HOST:PORT; takes requests of "
            "several clients, and whole inner loops."
        ),
    ] = "",
    student: Annotated[
        str,
        typer.Option(
            help="With --zmq: also serve this student, such as student:water, at the same address: "
            "both take whole outer steps here (<device_steps>)."
        ),
    ] = "",
    mode: Annotated[str, typer.Option(help="unix, inet or shm, as in the <ffsocket>.")] = "unix",
    device: Annotated[
        str,
        typer.Option(help="cpu, cuda or cuda:0; with --zmq several, such as cuda:0,cuda:1."),
    ] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    threads: Annotated[
        int,
        typer.Option(
            help="CPU threads, of all workers; 0: as OMP_NUM_THREADS says, or all cores.", min=0
        ),
    ] = 0,
    workers: Annotated[
        int,
        typer.Option(
            help="With --zmq: processes that share the requests; 0 for one a device.", min=0
        ),
    ] = 0,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="With --zmq tcp://: folder of `mts keys`, whose clients may ask; needed where "
            "other machines can."
        ),
    ] = None,
    mpi: Annotated[
        bool,
        typer.Option("--mpi", help="Under `mpiexec -n N`: share the atoms out among N processes."),
    ] = False,
    mpi_name: Annotated[
        str,
        typer.Option(
            help="With --mpi: serve the <ffmpi> of this name, of the i-PI that is the first "
            "process of the same mpiexec; instead of --address."
        ),
    ] = "",
    queue: Annotated[
        int,
        typer.Option(help="With --zmq: requests held at once; others wait outside.", min=1),
    ] = 64,
    batch: Annotated[
        int,
        typer.Option(help="With --zmq: clients' structures evaluated at once; 1 for none.", min=1),
    ] = 16,
    batch_wait_ms: Annotated[
        float,
        typer.Option(
            help="With --zmq: how long after its answer a client that runs beside others is waited "
            "for, so that they share a batch; 0 for never.",
            min=0,
        ),
    ] = 2.0,
    prefix: Annotated[
        str, typer.Option(help="Prefix of unix sockets (i-PI's sockets_prefix).")
    ] = "/tmp/ipi_",
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for the server; 0 waits for ever.", min=0)
    ] = 600.0,
    reconnect: Annotated[
        bool,
        typer.Option(
            "--reconnect",
            help="With --address: when the server has gone, wait for it again, up to --timeout.",
        ),
    ] = False,
    stats: Annotated[
        Path | None, typer.Option(help="JSON file for the number and time of calls.")
    ] = None,
    student_stats: Annotated[
        Path | None, typer.Option(help="The same for the --student.", hidden=True)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
    virial: Annotated[
        bool, typer.Option("--virial", help="Refuse models without one.", hidden=True)
    ] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
    worker: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Evaluate a model for i-PI: wait for the server, answer it, end when it ends.

    Example: mts serve so3lr --address teacher --structure start.extxyz
    """
    from mts_driver.errors import UserError
    from mts_driver.processes import die_with_parent, use_threads

    if sum(map(bool, (address, zmq, mpi_name))) != 1:
        raise UserError(
            "give one of --address, of an <ffsocket>, --zmq, where to listen, and --mpi-name, of "
            "an <ffmpi>."
        )
    if reconnect and not address:
        raise UserError(
            "--reconnect is for --address: a driver over ZeroMQ serves whoever comes, and clients "
            "connect again by themselves; one in a job with i-PI ends with it. Leave it out."
        )
    if mpi_name and not mpi:
        raise UserError(f"--mpi-name {mpi_name} needs --mpi, and i-PI in the same mpiexec.")
    if parent and not mpi:  # mpiexec is in between, and ends with its parent
        die_with_parent(parent)
    # SIGTERM unwinds the stack, so that sockets and statistics are closed properly
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if mpi:
        from mts_driver.drivers.mpi import MpiRanks

        ranks = MpiRanks(mpi_name)
        threads = threads or ranks.cores()
    # before torch is imported, which reads them once
    threads = use_threads(threads)

    from mts_driver.drivers.counters import Stats
    from mts_driver.drivers.ipi_socket.transport import Address

    def answer(load_model: Any = None) -> None:
        console = plain_console(stderr=True, quiet=quiet)
        counters = Stats(spec, stats)

        def load(device: str, *, of: Stats = counters) -> Any:
            start = time.perf_counter()
            found = _load(
                of.model,
                structure,
                device=device,
                dtype=dtype,
                virial=virial,
                stats=of,
                load_model=load_model,
            )
            # kernels compile once a machine, and their cache is read afterwards
            took = time.perf_counter() - start
            console.print(f"{of.model}: loaded and warmed up in {took:.1f} s")
            return found

        if zmq:
            from mts_driver.cli.serve_zmq import Options, serve_zmq

            options = Options(
                zmq,
                keys,
                spec,
                structure,
                device,
                dtype,
                threads,
                workers,
                queue,
                batch,
                batch_wait_ms,
            )
            beside = Stats(student, student_stats) if student else None
            serve_zmq(options, load, counters, console, student=beside, worker=worker)
            return
        if "," in device or workers > 1 or keys is not None or student:
            raise UserError(
                f"--address {address} with several devices, --workers, --keys or --student: an "
                "<ffsocket> has one driver of one model on one device; listen with --zmq instead, "
                "or leave them out."
            )
        target = None if mpi_name else Address.parse(address, mode, prefix=prefix)
        if target is None:
            from mts_driver.drivers.ipi_mpi import greet

            greet(ranks)
        evaluator = load(device)
        counters.enter("ready")
        with RateLine(console, counters) as update:
            job = ranks if mpi else None
            wait = {"timeout": timeout, "reconnect": reconnect}
            farewell = _answer_ipi(evaluator, target or job, spec, wait, console, update)
        counters.enter("done")
        console.print(f"{spec}: {farewell}; {rate(counters)}")

    if not mpi:
        answer()
        return
    from mts_driver.cli.serve_mpi import on_all_ranks

    models = [spec, student] if student else [spec]
    on_all_ranks(answer, ranks, models, structure, device=device, dtype=dtype)


def _answer_ipi(
    evaluator: Any, where: Any, model: str, wait: dict[str, Any], console: Any, update: Any
) -> str:
    """Evaluate structures for the i-PI at an address, or in the same job; tell how it ended."""
    from mts_driver.drivers.ipi_mpi import serve as answer_over_mpi
    from mts_driver.drivers.ipi_socket.client import serve as answer_over_socket
    from mts_driver.drivers.ipi_socket.transport import Address

    if isinstance(where, Address):
        reason = answer_over_socket(
            evaluator,
            where,
            model=model,
            **wait,
            tell=lambda text: console.print(f"{model}: {text}"),
            after_call=update,
        )
    else:
        reason = answer_over_mpi(evaluator, where, model=model, after_call=update)
    return "the server said exit" if reason == "exit" else "the server closed the connection"


def _load(
    spec: str,
    structure: Path,
    *,
    device: str,
    dtype: str,
    virial: bool,
    stats: Any,
    load_model: Any = None,
) -> Any:
    """Load the model and evaluate the structure, so that lists and kernels are built."""
    from mts_driver.drivers.evaluator import Evaluator
    from mts_driver.drivers.first_look import FirstLook
    from mts_driver.errors import UserError
    from mts_driver.potentials import load_potential
    from mts_driver.structures.files import read_structure
    from mts_driver.units import BOHR_A, HARTREE_PER_BOHR_EV_A

    atoms = read_structure(structure)
    if load_model is None:
        potential = load_potential(spec, atoms.numbers.tolist(), device=device, dtype=dtype)
    else:
        potential = load_model(spec, atoms, device=device, dtype=dtype)
    evaluator = Evaluator(potential, len(atoms), stats=stats, periodic=bool(atoms.pbc.all()))
    for _ in range(2):  # the second call is the first at full speed
        found = evaluator(atoms.positions[None] / BOHR_A, atoms.cell.array[None] / BOHR_A)
    if virial and not _gives_virial(potential, atoms):
        raise UserError(
            f"{spec} gives no virial (stress), without which nothing holds against a pressure: "
            "write <dynamics mode='nvt'>, or use a model with a stress."
        )
    stats.reset()
    evaluator.first_look = FirstLook(
        atoms,
        found[1] * HARTREE_PER_BOHR_EV_A,
        tell=lambda text: print(f"{spec}: {text}", file=sys.stderr, flush=True),
    )
    return evaluator


def _gives_virial(potential: Any, atoms: Any) -> bool:
    from mts_driver.potentials.virial import gives_virial

    return gives_virial(potential, atoms)


def _main() -> None:
    """Serve as a process of ``mts run``, without loading the other sub-commands."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Command)(serve)
    with ended_in_a_sentence():
        app()


if __name__ == "__main__":
    _main()
