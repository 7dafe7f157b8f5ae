"""Processes: child processes with a log, ties to a parent, who listens, threads and memory."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

KEPT_BYTES = 1 << 30
# Threads that wait spin for some 0.1 ms, long enough for the next loop of the same call: sleeping
# at once costs a fifth of a call, and spinning on takes the core that the other driver needs.
WAIT_BRIEFLY = {"GOMP_SPINCOUNT": "5000"}
# Large tensors come from the heap and stay there: mapping and unmapping them at every call costs
# more than a cheap model does (glibc).
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES), "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES)}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
_PR_SET_PDEATHSIG = 1


class Child:
    """A process in a session of its own, so that Ctrl-C reaches only ``mts run``.

    Parameters
    ----------
    name : str
        For messages.
    module : str
        Python module to run.
    arguments : list of str
        Its arguments.
    log : Path, optional
        Takes stdout and stderr, appended, and its folder is where the child runs; without one the
        child runs and writes where this process does.
    environment : dict, optional
        Variables to set.
    pass_fds : tuple of int, optional
        File descriptors to hand down.
    under : list of str, optional
        A command that runs what follows it, such as ``mpiexec -n 4``; it ends with this process.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: list[str],
        *,
        log: Path | None,
        environment: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
        under: list[str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._log_start = log.stat().st_size if log and log.exists() else 0
        with open(log, "ab") if log else contextlib.nullcontext() as stream:
            self.process = subprocess.Popen(
                [*(under or []), sys.executable, "-P", "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT if log else None,
                cwd=log.parent if log else None,
                # what the user has set wins
                env={**(environment or {}), **os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                pass_fds=pass_fds,
                # what is started under another command cannot see this process end
                preexec_fn=partial(die_with_parent, os.getpid()) if under else None,
            )

    def tell(self, line: str) -> None:
        """Write a line to the child's stdin."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is noticed, and explained, elsewhere

    @property
    def code(self) -> int | None:
        """Exit code, or None while it runs."""
        return self.process.poll()

    def how_it_ended(self) -> str:
        """Say how the process ended, in words."""
        code = self.code
        if code is None:
            return "still runs"
        if code < 0:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"

    def last_words(self, lines: int = 12) -> str:
        """Return the last lines that this process wrote to its log; nothing without one."""
        if self.log is None:
            return ""
        with open(self.log, "rb") as stream:
            stream.seek(self._log_start)
            text = stream.read().decode(errors="replace")
        return "\n".join(text.rstrip().splitlines()[-lines:])

    def stop(self, *, patience: float) -> bool:
        """Ask with SIGTERM, then, after ``patience`` seconds, kill.

        Returns
        -------
        bool
            Whether it went by itself.
        """
        if self.code is None:
            self.process.terminate()
        return self.wait(patience=patience)

    def wait(self, *, patience: float) -> bool:
        """Wait for its end, and kill it after ``patience`` seconds; True if it went by itself."""
        deadline = time.monotonic() + patience
        while self.code is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.code is not None:
            return True
        self.process.kill()
        self.process.wait()
        return False


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when the parent dies: kill -9 leaves no orphan.

    Parameters
    ----------
    parent : int
        Process id of the parent. If it is no longer our parent, it died before this call, and
        the process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        raise SystemExit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def somebody_listens(path: str) -> bool:
    """Whether a process has opened the unix socket of this name."""
    if sys.platform == "linux":
        # the kernel's table: asking there does not disturb the server, where connecting would
        # make i-PI take us for a driver
        lines = Path("/proc/net/unix").read_text().splitlines()
        return any(line.rsplit(None, 1)[-1] == path for line in lines)
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def use_threads(threads: int = 0) -> int:
    """Have torch and numba, if they are not loaded yet, take so many threads; return the number.

    Parameters
    ----------
    threads : int
        0: as OMP_NUM_THREADS says, which numba by itself does not look at, or one a core.
    """
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # the rest is for nested loops
    number = str(threads or (int(told) if told.isdigit() else 0) or os.cpu_count() or 1)
    os.environ["OMP_NUM_THREADS"] = number
    os.environ["NUMBA_NUM_THREADS"] = (
        number if threads else os.environ.get("NUMBA_NUM_THREADS", number)
    )
    return int(number)


def keep_memory() -> None:
    """Let glibc keep what large tensors give back, instead of asking for fresh pages at every call.

    A model evaluated thousands of times runs 10 to 30 % faster so. Does nothing elsewhere.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
            mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def free_memory_MB() -> float | None:
    """Memory that is free for new processes, MB; None where the system does not say."""
    file = Path("/proc/meminfo")
    if not file.exists():
        return None
    lines = (line.split() for line in file.read_text().splitlines())
    return next((float(line[1]) / 1024 for line in lines if line[0] == "MemAvailable:"), None)
