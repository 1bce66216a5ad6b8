"""Whether this client can work here: what `edge_client.releases` has a new one do before it is used."""

from __future__ import annotations

import sys

from wire import __version__


def main() -> int:
    """Load what every device needs, with the compiled parts, and print the version; raises whatever is wrong."""
    import edge_client.client
    import edge_client.enrol
    import edge_client.workshop  # noqa: F401
    from edge_client.runtimes import registry
    from wire.native.library import native

    native()
    registry.pick(None)
    sys.stdout.write(f"{__version__}\n")
    return 0
