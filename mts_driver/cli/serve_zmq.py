"""``mts serve --zmq``: one process that answers, or a front with several workers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mts_driver.cli.rate import RateLine, rate
from mts_driver.errors import UserError


@dataclass(frozen=True)
class Options:
    """The options of ``mts serve`` that matter here, as given."""

    address: str
    keys: Path | None
    spec: str
    structure: Path
    device: str
    dtype: str
    threads: int
    workers: int
    queue: int
    batch: int
    batch_wait_ms: float


def serve_zmq(
    options: Options,
    load: Callable[..., Any],
    stats: Any,
    console: Console,
    *,
    student: Any = None,
    worker: str = "",
) -> None:
    """Answer over ZeroMQ until the process is told to end.

    Parameters
    ----------
    load : callable
        Makes the evaluator of a device, and of the counters ``of`` it.
    stats : Stats
        Counts calls.
    student : Stats, optional
        Names a student to serve beside the model, and counts its calls.
    worker : str
        Name of a worker, which connects to its front.
    """
    from mts_driver.drivers.zmq.keys import check_keys
    from mts_driver.drivers.zmq.sockets import check_address

    check_address(options.address, keys=options.keys)  # before a model is loaded
    if options.keys is not None:
        check_keys(options.keys)
    assignments = share_out(options)
    if len(assignments) > 1:
        if student is not None:
            raise UserError(
                f"--student {student.model} with {len(assignments)} workers: whole outer steps of "
                "a system are taken on one device; start a driver for every system instead."
            )
        server = _front(options, assignments, stats, console)
    else:
        server = _single(options, load, assignments[0][0], worker, student)
    counters = [stats] if student is None else [stats, student]
    for one in counters:
        one.enter("ready")
    served = " and ".join(one.model for one in counters)
    console.print(f"{served}: listening at {options.address}")
    try:
        with RateLine(console, stats) as update:
            server.serve(after_call=update)
    finally:
        server.close()
        for one in counters:
            one.enter("done")
            console.print(f"{one.model}: ended; {rate(one)}")


def share_out(options: Options) -> list[tuple[str, int]]:
    """Device and CPU threads of every worker.

    Raises
    ------
    UserError
        If there are fewer workers than devices.
    """
    devices = [name.strip() for name in options.device.split(",")]
    count = options.workers or len(devices)
    if count < len(devices) or not all(devices):
        raise UserError(
            f"--workers {options.workers} with --device {options.device}: give at least one worker "
            "a device, or leave --workers out."
        )
    threads = max(1, options.threads // count)
    return [(devices[k % len(devices)], threads) for k in range(count)]


def _single(
    options: Options, load: Callable[..., Any], device: str, worker: str, student: Any
) -> Any:
    from mts_driver.drivers.zmq.server import Limits, Model, Server

    return Server(
        Model(options.spec, load(device)),
        options.address,
        student=Model(student.model, load(device, of=student)) if student else None,
        keys=options.keys,
        limits=Limits(options.queue, options.batch, options.batch_wait_ms),
        worker=worker,
    )


def _front(
    options: Options, assignments: list[tuple[str, int]], stats: Any, console: Console
) -> Any:
    from mts_driver.drivers.zmq.worker_pool import Front

    shared = [options.spec, "--structure", options.structure, "--dtype", options.dtype]
    shared += ["--queue", options.queue, "--batch", options.batch]
    shared += ["--batch-wait-ms", options.batch_wait_ms]
    front = Front(
        options.address,
        [
            [*map(str, shared), "--device", device, "--threads", str(threads)]
            for device, threads in assignments
        ],
        stats=stats,
        keys=options.keys,
        queue=options.queue,
        tell=lambda text: console.print(f"{options.spec}: {text}"),
    )
    try:
        front.wait_until_ready()
    except BaseException:
        front.close()
        raise
    stats.reset()
    return front
