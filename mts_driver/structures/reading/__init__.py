"""What the formats of files say of a structure, and in which words."""
