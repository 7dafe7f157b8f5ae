"""Where copies of ``ipi_register.py`` beside older inputs look for `integrators.ipi.plugin`."""

from integrators.ipi.plugin import register

__all__ = ["register"]
