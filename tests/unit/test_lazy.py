"""Modules that load when they are used."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from wire.lazy import load_later
load_later("urllib.request")
import urllib.parse, urllib.request
assert "http.client" not in sys.modules, "importing it loads nothing"
assert callable(urllib.request.getproxies)
assert "http.client" in sys.modules, "using it does"
from urllib.request import urlopen
assert urlopen is urllib.request.urlopen
"""


def test_module_loads_at_its_first_use() -> None:
    """In a fresh process: the import is free, the first attribute loads the real module, for everybody."""
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_mqtt_transport_does_without_http() -> None:
    """Paho's proxy search is never loaded on a plain connection: 3 MB of a small board's memory."""
    subprocess.run([sys.executable, "-c", "import sys, wire.mqtt; sys.exit('http.client' in sys.modules)"], check=True)


def test_client_does_without_numpy_random() -> None:
    """Tickets, training order and masks need none of numpy.random's 2.6 MB (numpy >= 2 loads it when asked)."""
    code = "import sys, numpy, edge_client.client, wire.ticket; sys.exit('numpy.random' in sys.modules)"
    if "numpy.random" in subprocess.run(
        [sys.executable, "-c", "import sys, numpy; print('numpy.random' in sys.modules and 'numpy.random')"],
        check=True, capture_output=True, text=True,
    ).stdout:  # fmt: skip
        return  # an older numpy loads it by itself
    subprocess.run([sys.executable, "-c", code], check=True)


def test_devices_that_hide_nothing_do_not_load_secure_aggregation() -> None:
    """Nor any package for it beside what signatures take."""
    unwanted = {"wire.secure", "wire.sharing", "cryptography"}
    code = f"import sys, edge_client.client; sys.exit(bool({unwanted} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
