"""How i-PI's process ends: why, that it is said once, and that it does end.

i-PI ends by its loop, by a *soft exit* that any thread may ask for (a file EXIT, a signal, a
clock), or because one of its threads dies, which it does not notice: it would wait for ever.
"""

import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from mts_driver.errors import UserError

PATIENCE_S = 30.0
"""Between the wish to end and the end, in which RESTART is written."""
_POLL_S = 0.05

_REASONS = {
    "EXIT file": "the file EXIT",
    "Kill signal": "a signal (Ctrl-C or SIGTERM)",
    "wallclock time": "the wall-clock time of <total_time>",
    "Client shutdown": "a driver that went away, where the input has exit_on_disconnect",
}
_UNEXPLAINED = "Exiting cleanly"
_UNSAID = {
    "InvalidSize": "a driver answered for another number of atoms than it was asked about",
    "InvalidStatus": "a driver answered out of turn",
}
"""What i-PI means by exceptions that have no message."""


class NotRestartable(RuntimeError):
    """The state of the run is not worth a RESTART."""


class Ending:
    """Sees every end of i-PI's process and reports it once, as the event ``end`` or ``error``.

    Parameters
    ----------
    send : callable
        Takes the event.
    measured : callable
        Returns the measurements so far, with ``step`` and ``total``; empty before there are any.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        measured: Callable[[], dict[str, Any]],
    ) -> None:
        self._send, self._measured = send, measured
        self._reported = threading.Lock()  # taken by the only report, and kept
        self._message, self._failure, self._kind = "", "", ""

    def watch(self) -> None:
        """Hear of every soft exit, and of every thread that dies, from now on."""
        from integrators.ipi.replacements import hear_of_soft_exits

        hear_of_soft_exits(self._soft_exit)
        threading.excepthook = self._thread_died

    def _soft_exit(self, status: str, message: str) -> None:
        from ipi.utils.softexit import softexit

        if not softexit.triggered:
            self._message = message
            if status == "bad":
                self._failure = _tidy(message)
            self._limit_the_time()

    def report(self) -> None:
        """Say how the run ended, and its measurements; once, whichever thread comes first."""
        if not self._reported.acquire(blocking=False):
            return
        try:
            measured = self._measured()
        except Exception:  # the end must be heard of even if it cannot be described
            traceback.print_exc()
            measured = {}
        if self._failure:
            about = {"message": self._failure, "kind": self._kind, "measured": measured}
            self._send({"event": "error", **about})
            return
        finished = bool(measured) and measured["done"]
        self._send({"event": "end", **measured, "ended_by": "" if finished else self.reason()})

    def reason(self) -> str:
        """Say what has ended the run, in words that follow "ended by"."""
        message = self._message
        if not message or _UNEXPLAINED in message:  # the main loop has looked for both as well
            message = "EXIT file" if os.path.exists("EXIT") else "wallclock time"
        found = (words for sign, words in _REASONS.items() if sign in message)
        return next(found, f"i-PI: {_tidy(message)}")

    def failed(self, error: BaseException) -> None:
        """End the process after an exception of the main thread; does not return."""
        from ipi.utils.softexit import softexit

        if softexit.triggered:
            # its sockets were closed on this thread, unless what failed is the end itself
            while softexit.exiting:
                time.sleep(_POLL_S)
            if softexit.flist:
                self._blame(error, "")
        elif not isinstance(error, SystemExit):
            self._blame(error, "")
        elif not self._failure:
            self._failure = "it gave up, and its log says why"
        self._finish(restartable=not isinstance(error, NotRestartable))

    def _thread_died(self, args: Any) -> None:
        from ipi.utils.softexit import softexit

        if issubclass(args.exc_type, SystemExit):  # i-PI's way to end a thread
            return
        name = args.thread.name if args.thread else "unknown"
        if softexit.triggered and threading.current_thread() is not softexit._thread:
            traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
            return  # the end is under way already
        self._blame(args.exc_value, f"its thread {name!r} died: ")
        self._finish(restartable=True)

    def _blame(self, error: BaseException, where: str) -> None:
        if not isinstance(error, UserError):
            traceback.print_exception(error)
        self._kind = type(error).__name__
        message = str(error) or _UNSAID.get(self._kind, "")
        if where or not message:
            message = f"{self._kind}: {message}" if message else self._kind
        self._failure = self._failure or where + message

    def _finish(self, *, restartable: bool) -> None:
        """Do what a soft exit does, go on where a part of it fails, and end the process."""
        from ipi.utils.softexit import softexit

        self._limit_the_time()
        while softexit.flist and restartable:
            try:
                # leaves it to another thread that writes outputs just now
                softexit.cleanup("restartable", self._failure)
            except Exception as error:
                self._blame(error, "its end failed: ")
            time.sleep(_POLL_S)
        self.report()
        _leave()

    def _limit_the_time(self) -> None:
        timer = threading.Timer(PATIENCE_S, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        self._failure = self._failure or (
            f"it did not end within {PATIENCE_S:g} s of being asked to by {self.reason()}"
        )
        self.report()
        _leave()


def _tidy(message: str) -> str:
    """Take i-PI's marks of where a message comes from off it."""
    return re.sub(r"^[\s@]*(SOFTEXIT|FORCES|SIMULATION)?\s*:?\s*", "", message).rstrip(" .")


def _leave() -> None:
    """End the process; i-PI's threads would keep it alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
