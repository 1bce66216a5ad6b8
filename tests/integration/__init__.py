"""Tests with real processes and brokers."""
