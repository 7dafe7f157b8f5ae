"""What a structure says: read, checked, kept, written."""
