"""A function called in a process of its own: fresh memory, and threads as asked."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mts_driver.bench.settings import thread_variables
from mts_driver.errors import UserError
from mts_driver.processes import KEEP_MEMORY, WAIT_BRIEFLY


def call_fresh(
    function: Callable[..., Any],
    *,
    threads: int,
    timeout_s: float | None = None,
    under: tuple[str, ...] = (),
    **arguments: Any,
) -> Any:
    """Call ``function(**arguments)`` in a fresh process and return what it returns.

    Parameters
    ----------
    function : callable
        Of the top level of a module; arguments and result must be what JSON can hold.
    threads : int
        CPU threads; 0 for all cores.
    timeout_s : float, optional
        When to give up.
    under : tuple of str
        A command that runs what follows it, such as ``mpiexec -n 2``; the first process answers.

    Raises
    ------
    UserError
        If the process fails or takes too long, with its last line.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    # the memory and threads of a driver under ``mts run``
    defaults = {**WAIT_BRIEFLY, **KEEP_MEMORY}
    environment = {**defaults, **os.environ, **thread_variables(threads)}
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        answer = Path(folder) / "answer.json"
        command = [*under, sys.executable, "-P", "-m", "mts_driver.bench.fresh", name]
        try:
            done = subprocess.run(
                [*command, json.dumps(arguments), str(answer)],
                capture_output=True,
                text=True,
                env=environment,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"no result within {timeout_s:.0f} s") from None
        if done.returncode:
            raise UserError(_last_words(done))
        return json.loads(answer.read_text())


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -9:
        return "killed, as when memory runs out"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with exit code {done.returncode}"


def main() -> None:
    """Make the call that the arguments describe."""
    name, arguments, answer = sys.argv[1:]
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if found is not None:
        Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
