"""Potentials whose atoms are shared out among several processes."""
