"""What a user could run without this project, as ASE calculators."""

from ase.calculators.calculator import Calculator


def packaged_so3lr() -> Calculator:
    """Return the ASE calculator of ``so3krates-torch`` in float32 with its own settings."""
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    return SO3LRCalculator(default_dtype="float32")
