"""Frames between stored ones: splines, and what else fills a gap."""
