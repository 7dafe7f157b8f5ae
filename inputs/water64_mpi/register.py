"""What the first <ffdirect> of input.xml loads: i-PI knows multiple time steps afterwards."""

from integrators.ipi.register import __DRIVER_CLASS__, __DRIVER_NAME__, Dummy_driver

__all__ = ["__DRIVER_CLASS__", "__DRIVER_NAME__", "Dummy_driver"]
