"""From a ticket to what a device can run or boot: artifacts, bundles, and their check against torch autograd."""
