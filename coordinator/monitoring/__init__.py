"""What others see of a run: metrics for Prometheus, and devices in Home Assistant."""
