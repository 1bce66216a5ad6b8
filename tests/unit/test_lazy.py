"""Modules that load when they are used."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

# Without `site`, which loads what it likes: .pth files of an environment.
PATH = f"import sys; sys.path[:0] = {[str(Path(__file__).parents[2]), sysconfig.get_path('purelib')]!r}\n"
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


def test_a_device_loads_nothing_that_it_seldom_needs() -> None:
    """Web server, packages' metadata, masked arrays, other processes: 5 MB, and 8 more while they are compiled."""
    code = """
import sys
import numpy as np
import edge_client.cli, edge_client.client, edge_client.enrol
from edge_client.runtimes import registry
from edge_client.trainer import Trained

registry.available()
trained = Trained(signs=np.zeros(1, bool), scores=np.zeros(1, np.float32), loss=0.0, steps_s=(0.004, 0.001, 0.002))
assert trained.step_ms == 2.0, trained.step_ms
seldom = {"http.server", "http.client", "email.message", "importlib.metadata", "numpy.ma", "subprocess"}
sys.exit(" ".join(seldom & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", PATH + code], capture_output=True, text=True, check=False)
    assert done.stderr.split() == []


WAITS = """
import sys
import edge_client.cli
from edge_client import agent, apart, client, counts, renewal, staging, store, updates
from wire import channel, mqtt

seldom = {"ast", "cbor2", "dis", "inspect", "numpy", "uuid"}
if sys.version_info >= (3, 13):  # before, pathlib had it
    seldom.add("ipaddress")
print(*(name for name in seldom & set(sys.modules) if getattr(sys.modules[name], "__spec__", None)))

from dataclasses import dataclass
import inspect

@dataclass(frozen=True)
class One:
    a: int
    b: str = ""

assert str(inspect.signature(One.__init__)) == "(self, a: int, b: str = '') -> None"
assert inspect.getmodule(One) is sys.modules["__main__"]
assert repr(One(1)) == "One(a=1, b='')"
assert One.__match_args__ == ("a", "b")
"""


def test_what_waits_has_none_of_what_its_packages_bring_along() -> None:
    """3 MB of them; and who asks for `inspect` gets all of it."""
    code = PATH + WAITS
    done = subprocess.run([sys.executable, "-I", "-S", "-OO", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([], "")
