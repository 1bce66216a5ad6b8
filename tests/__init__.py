"""Tests of hidenseek."""
