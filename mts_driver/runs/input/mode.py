"""Who takes the steps: i-PI, or the drivers, which is faster and which not every run permits."""

from dataclasses import replace

from mts_driver.errors import UserError
from mts_driver.runs.input.settings import RunSettings

MODES = ("auto", "unix", "shm", "zmq")
AHEAD = 5
"""Outer steps a message: beyond, what is left between the models hardly shrinks."""


def fastest(protocol: RunSettings) -> tuple[RunSettings, str]:
    """Return the same run with its steps taken where that is fastest, and a line that says where.

    Whole outer steps in a driver with both models, several or one a message; else the inner steps
    in the student's driver; else i-PI takes all steps, with two drivers behind sockets. The
    trajectory is the same to rounding, but for the noise of whole outer steps, which is another.

    Parameters
    ----------
    protocol : RunSettings
        With ``mode="unix"`` and no ``device_steps``: what is wrong with it otherwise was refused
        when it was made.
    """
    if protocol.student is None:
        return protocol, "i-PI takes the steps: there is one model, behind a socket"
    refusal = ""
    for steps in (AHEAD, 1):
        try:
            found = replace(protocol, mode="zmq", device_steps=steps)
        except UserError as error:
            refusal = str(error)
            continue
        many = "1 outer step" if steps == 1 else f"{steps} outer steps"
        return found, f"one driver has both models and takes {many} a message (--mode auto)"
    reason = refusal.partition(": ")[0].split(" with ", 1)[-1]
    if protocol.pressure_bar is None and not protocol.held:
        found = replace(protocol, mode="zmq")
        return found, f"the student's driver takes the inner steps, because of {reason}"
    return protocol, f"i-PI takes the steps, with two drivers behind sockets, because of {reason}"
