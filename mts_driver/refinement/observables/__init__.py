"""What is measured, as torch functions of a trajectory's snapshots: one observable a file."""
