"""How the atoms of a run move: diffusion, vibrations, velocities."""
