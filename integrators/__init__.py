"""Splitting integrators for multiple time-step molecular dynamics (never imports mts_driver)."""
