"""SO3LR, with lists and kernels of its own."""
