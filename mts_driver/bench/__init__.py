"""Benchmarks: a command each, printing a table and a JSON file."""
