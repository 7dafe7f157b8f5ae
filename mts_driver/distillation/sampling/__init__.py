"""Which structures the teacher is asked about."""
