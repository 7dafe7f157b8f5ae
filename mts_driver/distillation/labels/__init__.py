"""What the teacher says of structures, kept in a file."""
