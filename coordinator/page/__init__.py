"""The live page of `hidenseek serve`: the fleet in a browser, in a thread of its own beside the rounds."""
