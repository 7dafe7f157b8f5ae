"""What the <ffdirect> of input.xml loads: it asks the student's driver over ZeroMQ."""

from mts_driver.drivers.zmq.ipi_pes import __DRIVER_CLASS__, __DRIVER_NAME__, ZmqPES

__all__ = ["__DRIVER_CLASS__", "__DRIVER_NAME__", "ZmqPES"]
