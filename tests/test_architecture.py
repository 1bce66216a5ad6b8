"""The arrows between packages and the place of every heavy dependency, read from the source of every module.

`edge_client -> wire`, `export -> wire`, `coordinator -> export, wire`; imports inside functions count.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("wire", "edge_client", "export", "coordinator")
MODULES = sorted(path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Who may import which of our packages, besides itself.
ARROWS = {"wire": set(), "edge_client": {"wire"}, "export": {"wire"}, "coordinator": {"export", "wire"}}
# A simulation has both sides in it.
EXCEPTIONS = {
    "coordinator/simulation_worker.py": {"edge_client"},
    "coordinator/baselines/hidenseek_signs.py": {"edge_client"},
    # So has a load test: its devices decide as every device does.
    "coordinator/loadtest/device.py": {"edge_client"},
    # So has a check of what devices will run.
    "coordinator/verify_worker.py": {"edge_client"},
    # And a device's process on the machine that plans, in a process of its own.
    "coordinator/device_worker.py": {"edge_client"},
}

# Where a heavy dependency may be imported at all, and where only inside a function (lazily).
HEAVY = {
    "torch": {
        "anywhere": ["export/*", "coordinator/baselines/*"],
        "lazily": ["coordinator/prune.py", "coordinator/saliency.py"],
    },
    "onnx": {"anywhere": ["export/*"], "lazily": []},
    "onnxruntime": {"anywhere": ["export/*"], "lazily": ["edge_client/runtimes/onnx.py", "coordinator/evaluate.py"]},
    "executorch": {"anywhere": ["export/*"], "lazily": ["edge_client/runtimes/executorch.py"]},
    # A device's transport, and what tries a broker in ways that no device does.
    "paho": {"anywhere": ["wire/mqtt.py", "coordinator/brokers/probe.py"], "lazily": []},
    "cryptography": {
        "anywhere": ["coordinator/brokers/certificates.py", "coordinator/brokers/device_certificates.py"],
        "lazily": [],
    },
    "prometheus_client": {
        "anywhere": ["coordinator/monitoring/metrics.py", "coordinator/monitoring/endpoint.py"],
        "lazily": [],
    },
    # A coordinator without a page has no web server in its memory.
    "starlette": {"anywhere": ["coordinator/page/*"], "lazily": []},
    "uvicorn": {"anywhere": ["coordinator/page/server.py"], "lazily": []},
    "segno": {"anywhere": ["coordinator/invitation.py"], "lazily": []},
    # Who keeps everything in a file needs no driver of a server.
    "psycopg": {"anywhere": ["coordinator/postgres*.py"], "lazily": []},
    "cbor2": {"anywhere": [], "lazily": []},  # tests compare with it; a device has no memory for it
}
OPTIONAL_RUNTIMES = {"edge_client/runtimes/onnx.py", "edge_client/runtimes/executorch.py"}
ABSENT = ("torch", "onnx", "onnxruntime", "executorch")


def imports_of(source: str) -> list[tuple[str, bool]]:
    """Every module a source imports, relative imports aside, and whether only inside a function.

    `importlib.import_module("...")` with a literal name counts too.
    """
    tree = ast.parse(source)
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        match node:
            case ast.Import(names=names):
                found.extend((name.name, lazy) for name in names)
            case ast.ImportFrom(module=str() as module, level=0):
                found.append((module, lazy))
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str() as module), *_]
            ):
                if name in ("import_module", "__import__"):
                    found.append((module, lazy))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                lazy = True
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                lazy = True  # never run
        for child in ast.iter_child_nodes(node):
            visit(child, lazy)

    visit(tree, False)
    return found


@cache
def tops(path: str) -> list[tuple[str, bool]]:
    """Top-level names that a module of the project imports."""
    return [(name.partition(".")[0], lazy) for name, lazy in imports_of((ROOT / path).read_text())]


def wrong_arrows(path: str, imported: list[tuple[str, bool]]) -> set[str]:
    """Packages of ours that the module at `path` must not see."""
    package = path.partition("/")[0]
    allowed = ARROWS[package] | {package} | EXCEPTIONS.get(path, set())
    return {name for name, _ in imported if name in PACKAGES} - allowed


def misplaced(path: str, imported: list[tuple[str, bool]]) -> set[str]:
    """Heavy dependencies that the module at `path` must not import, or not when it is itself imported."""
    found = set()
    for name, lazy in imported:
        if name in HEAVY:
            places = HEAVY[name]["anywhere"] + (HEAVY[name]["lazily"] if lazy else [])
            if not any(fnmatch(path, place) for place in places):
                found.add(name)
    return found


def test_every_package_is_there() -> None:
    """The list of modules is not empty by mistake."""
    for package in PACKAGES:
        assert sum(path.startswith(f"{package}/") for path in MODULES) > 2, package


def test_arrows_point_one_way() -> None:
    """Every module imports, anywhere in it, only the packages its own may see."""
    wrong = {path: found for path in MODULES if (found := wrong_arrows(path, tops(path)))}
    assert not wrong


def test_heavy_dependencies_are_in_their_place() -> None:
    """torch, onnx, onnxruntime, executorch, paho and others are imported only where they belong."""
    wrong = {path: found for path in MODULES if (found := misplaced(path, tops(path)))}
    assert not wrong


def test_modules_use_absolute_imports() -> None:
    """No relative import hides where a module comes from."""
    relative = re.compile(r"^\s*from \.", re.MULTILINE)
    assert not [path for path in MODULES if relative.search((ROOT / path).read_text())]


def test_the_reader_of_imports_sees_all_kinds() -> None:
    """Plain, from, aliased, lazy, conditional and literal dynamic imports are all found."""
    source = """
import torch.nn as nn
from edge_client.agent import Device
if True:
    import paho
try:
    import onnx
except ImportError:
    pass
def f():
    import onnxruntime as ort
    return __import__("executorch")
class C:
    def g(self):
        from importlib import import_module
        import_module("torch.optim")
"""
    found = imports_of(source)
    assert {(name, lazy) for name, lazy in found if name != "importlib"} == {
        ("torch.nn", False),
        ("edge_client.agent", False),
        ("paho", False),
        ("onnx", False),
        ("onnxruntime", True),
        ("executorch", True),
        ("torch.optim", True),
    }


@pytest.mark.parametrize(
    ("path", "name", "lazy"),
    [
        ("wire/mask.py", "edge_client", True),
        ("edge_client/agent.py", "coordinator", True),
        ("edge_client/agent.py", "export", False),
        ("export/bundle.py", "edge_client", True),
        ("coordinator/server.py", "edge_client", True),
    ],
)
def test_a_wrong_arrow_is_noticed(path: str, name: str, lazy: bool) -> None:
    """The check of arrows fails where it should."""
    assert wrong_arrows(path, [(name, lazy)]) == {name}


@pytest.mark.parametrize(
    ("path", "name", "lazy", "wrong"),
    [
        ("wire/plan.py", "torch", True, True),
        ("coordinator/prune.py", "torch", False, True),
        ("coordinator/prune.py", "torch", True, False),
        ("edge_client/runtimes/onnx.py", "onnxruntime", True, False),
        ("edge_client/runtimes/onnx.py", "onnxruntime", False, True),
        ("edge_client/runtimes/onnx.py", "onnx", True, True),
        ("edge_client/client.py", "paho", True, True),
        ("export/verify.py", "torch", False, False),
        ("export/verify.py", "paho", True, True),
    ],
)
def test_a_misplaced_dependency_is_noticed(path: str, name: str, lazy: bool, wrong: bool) -> None:
    """The check of heavy dependencies fails where it should, and only there."""
    assert misplaced(path, [(name, lazy)]) == ({name} if wrong else set())


def _without_heavy(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which the heavy packages cannot be imported."""
    blocker = f"""
import sys
ABSENT = {ABSENT!r}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""
    return subprocess.run(
        [sys.executable, "-c", blocker + code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_blocker_blocks() -> None:
    """In that interpreter torch really is absent."""
    assert "No module named 'torch'" in _without_heavy("import torch").stderr


def test_devices_need_no_heavy_package() -> None:
    """Every module of wire and edge_client, the optional runtimes aside, imports with them absent."""
    names = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in MODULES
        if path.startswith(("wire/", "edge_client/")) and path not in OPTIONAL_RUNTIMES and "__main__" not in path
    ]
    done = _without_heavy(f"from importlib import import_module\nfor name in {names!r}: import_module(name)")
    assert done.returncode == 0, done.stderr


def test_the_device_command_starts_without_them() -> None:
    """`hidenseek-edge --help` works with the heavy packages absent."""
    done = _without_heavy("sys.argv = ['hidenseek-edge', '--help']\nfrom edge_client.cli import main\nmain()")
    assert done.returncode == 0, done.stderr
    assert "join" in done.stdout


@pytest.mark.slow
def test_a_coordinator_without_a_page_has_no_web_server() -> None:
    """What `hidenseek serve` imports is without it until it is asked for."""
    code = (
        "import sys, coordinator.serving, coordinator.serve_command\n"
        "sys.exit(bool({name.partition('.')[0] for name in sys.modules} & {'starlette', 'uvicorn', 'anyio'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_device_command_does_not_look_for_them() -> None:
    """Where they are installed, `hidenseek-edge --help` imports none of them, nor numpy or paho."""
    code = (
        "import sys\nfrom edge_client.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"found = {{name.partition('.')[0] for name in sys.modules}} & {{'numpy', 'paho', *{ABSENT!r}}}\n"
        "print(*found, file=sys.stderr)\nsys.exit(bool(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
