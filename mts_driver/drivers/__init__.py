"""Drivers: serve a potential over i-PI's socket, and start and supervise whole runs."""
