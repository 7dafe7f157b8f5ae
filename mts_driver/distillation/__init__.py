"""Distillation of a teacher potential into a student."""
