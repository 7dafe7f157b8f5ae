"""Kernels of the student on the CPU."""
