"""What a file says under names that nobody reads, refused so that it is not lost in silence."""

from ase import Atoms

from mts_driver.errors import UserError

CELLS = ("cell", "lattice", "box", "cell_vectors", "unit_cell")
HELD = ("fixed", "frozen", "fix", "freeze", "constrained", "constraints", "mobile", "movable")
MASSES = ("isotope", "isotopes", "atomic_mass", "atomic_masses", "mass_number")


def refuse_other_names(atoms: Atoms, name: str) -> None:
    """Refuse a cell, held atoms and masses that are spelled in another way.

    Raises
    ------
    UserError
        Naming the word or column, and how it is written.
    """
    for key in atoms.info if not atoms.cell.any() else ():
        if str(key).lower() in CELLS:
            raise UserError(
                f"structure {name!r}: its header says {key}=..., which is not how a cell is "
                'written: write Lattice="ax ay az bx by bz cx cy cz" and pbc="T T T", in Å, or '
                "leave it out for an isolated molecule."
            )
    for column in atoms.arrays:
        for names, instead in (
            (HELD, "move_mask (L, F for atoms that are held)"),
            (MASSES, "masses (R, in Da)"),
        ):
            if column.lower() in names:
                raise UserError(
                    f"structure {name!r} has a column {column!r}, which is not read: call it "
                    f"{instead}, or leave it out."
                )
