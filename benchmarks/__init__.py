"""Measurements: each a module to run, each writes what it found with machine, versions and commit."""
