"""Parts of classical energies: functions of distances and angles, with second derivatives."""
