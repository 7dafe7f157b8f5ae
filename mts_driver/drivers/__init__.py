"""Drivers: processes that serve a potential, over i-PI's protocol or ZeroMQ."""
