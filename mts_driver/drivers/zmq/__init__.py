"""Drivers over ZeroMQ: several clients and workers, and inner loops in the driver."""
