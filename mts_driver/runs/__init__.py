"""A whole i-PI run: what it asks for, and what of that cannot be had."""
