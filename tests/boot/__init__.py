"""Cards made by `hidenseek flash`, booted."""
