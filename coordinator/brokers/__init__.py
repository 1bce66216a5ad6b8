"""Brokers to deploy: what is written for them, how they run here, and proof that they do what they should."""
