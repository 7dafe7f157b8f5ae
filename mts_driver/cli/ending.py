"""How a command ends that cannot go on: a sentence for what a user can put right."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from rich.text import Text

from mts_driver.cli.console import plain_console
from mts_driver.errors import UserError

REMEDIES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "it is a folder: give a file",
    errno.EACCES: "choose another path, or give yourself the right to use this one",
    errno.EPERM: "choose another path, or give yourself the right to use this one",
    errno.EROFS: "choose a path that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "make room, or write to another disk",
    errno.EDQUOT: "make room, or write to another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


@contextlib.contextmanager
def ended_in_a_sentence() -> Iterator[None]:
    """End the program with status 2 and a sentence, or 130 after Ctrl-C; faults of ours pass."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # whoever read the output has seen enough, as in `mts ... | head`
        _let_go_of_output()
        sys.exit(1)
    except Exception as error:
        status = status_asked_for(error)
        if status is not None:
            sys.exit(status)
        text = sentence(error)
        if text is None:
            raise
        plain_console(stderr=True).print(Text("error:", "bold red"), text)
        _let_go_of_output()
        sys.exit(2)


def status_asked_for(error: BaseException | None) -> int | None:
    """Know Ctrl-C and SIGTERM also where they came in compiled code; None for anything else.

    What a signal's handler raises there reaches Python as the cause of a SystemError, or of an
    ImportError where a library was just being loaded.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return 130
        if isinstance(error, SystemExit):
            return int(error.code or 0)
        error = error.__cause__
    return None


def sentence(error: Exception) -> str | None:
    """Say what went wrong and what to do about it; None for faults of this program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        remedy = REMEDIES.get(error.errno or 0)
        where = f"{os.fsdecode(error.filename)!r}: " if error.filename is not None else ""
        return f"{where}{what}{f' ({remedy})' if remedy else ''}"
    if _is_out_of_memory(error):
        first = str(error).partition("\n")[0]
        return (
            f"there is not enough memory ({type(error).__name__}: {first}): take a smaller system, "
            "fewer beads or replicas, or a machine with more."
        )
    return None


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    # not imported for this: where torch is not loaded, the error is not its
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _let_go_of_output() -> None:
    """Keep Python from a second complaint, at its end, about an output that takes no more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
