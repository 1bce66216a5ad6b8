"""A fleet of real processes on a bad network, killed at any moment (docs/chaos.md)."""
