"""The ZeroMQ potential without its inner loop: i-PI takes every inner step itself."""

from mts_driver.drivers.zmq.ipi_pes import ZmqPES

__DRIVER_NAME__ = "step_by_step"
__DRIVER_CLASS__ = "StepByStep"


class StepByStep:
    """Evaluates only."""

    def __init__(self, **options):
        self._pes = ZmqPES(**options)

    def __call__(self, cell, pos):
        """Energy, forces, virial and extras of one structure."""
        return self._pes.compute_structure(cell, pos)
