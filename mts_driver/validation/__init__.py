"""What a student is worth, by physics."""
