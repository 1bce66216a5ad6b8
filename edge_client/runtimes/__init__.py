"""What executes a ticket on a device. Every runtime gives the same numbers."""
