"""Where run folders of older versions look for `mts_driver.drivers.zmq.ipi_pes`."""

from mts_driver.drivers.zmq.ipi_pes import __DRIVER_CLASS__, __DRIVER_NAME__, ZmqPES

__all__ = ["__DRIVER_CLASS__", "__DRIVER_NAME__", "ZmqPES"]
