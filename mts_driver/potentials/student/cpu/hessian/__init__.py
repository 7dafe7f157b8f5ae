"""Second derivatives of the student on the CPU."""
