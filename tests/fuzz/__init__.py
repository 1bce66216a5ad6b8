"""Fuzzing of everything that reads bytes from elsewhere: `make fuzz`."""
