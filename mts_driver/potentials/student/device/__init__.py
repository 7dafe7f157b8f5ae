"""Kernels of the student for CUDA, in NVIDIA Warp, which run on the CPU as well."""
