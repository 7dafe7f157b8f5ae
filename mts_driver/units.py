"""Unit conversions, the only ones in the project.

Inside the project lengths are Å, times fs, energies eV and velocities Å/fs. The consistent unit of
mass is then eV fs²/Å², so that ``a = F/m`` needs no factor: ``mass = amu * EV_FS2_A2_PER_AMU``.
Values are those of CODATA 2018, through ASE and i-PI.
"""

HARTREE_EV = 27.211386245988
BOHR_A = 0.529177210903
HARTREE_PER_BOHR_EV_A = HARTREE_EV / BOHR_A
AU_TIME_FS = 2.4188843265857e-2
EV_FS2_A2_PER_AMU = 103.6426965268
AMU_PER_ELECTRON_MASS = 1.0 / 1822.888486209
BOLTZMANN_EV_K = 8.617333262e-5
KJ_MOL_EV = 1e-4 * EV_FS2_A2_PER_AMU
"""1 kJ/mol in eV. It is 1 amu nm²/ps², OpenMM's unit, so that both units of mass agree exactly."""
KCAL_MOL_EV = 4.3364104e-2
"""1 kcal/mol in eV; the paper's force clip of 150 kcal/mol/Å is 6.5046 eV/Å."""
EV_J = 1.602176634e-19
EV_A3_GPA = 160.2176634
A2_FS_M2_S = 1e-5
"""1 Å²/fs in m²/s, of diffusion coefficients."""
LIGHT_CM_FS = 2.99792458e-5
"""Speed of light; a wavenumber in 1/cm times this is a frequency in 1/fs."""
