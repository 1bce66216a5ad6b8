"""Wheels of the tree as it is, built in a copy so that nothing here changes and tests do not meet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from wire import __version__

ROOT = Path(__file__).parents[1]
PARTS = ("wire", "edge_client", "export", "coordinator", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", "*.so", "*.tmp")


def copy_tree(target: Path) -> Path:
    """Copy what a build reads, without compiled kernels; return `target`."""
    target.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=LEFT_OUT)
        else:
            shutil.copy(source, target / part)
    return target


def environment(**changes: str) -> dict[str, str]:
    """The environment of this process without what would steer the build or the kernels, and with `changes`."""
    left_out = {"CC", "CFLAGS", "PYTHONPATH", "HIDENSEEK_KERNELS", "HIDENSEEK_WIRE"}
    return {name: value for name, value in os.environ.items() if name not in left_out} | changes


def pip(*arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run pip; what it printed.

    Raises:
        AssertionError: if it fails, with the end of what it said.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, env=env or environment(), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def build_wheel(source: Path, folder: Path, **changes: str) -> Path:
    """Build the wheel of a source tree into `folder`, as `pip install .` does, with changes to the environment."""
    pip("wheel", "--no-deps", "--wheel-dir", folder, source, env=environment(**changes))
    (wheel,) = folder.glob("*.whl")
    return wheel


def two_versions(folder: Path, following: str) -> dict[str, Path]:
    """The wheel of the tree as it is, and one of the following version; both built as a user builds them."""
    tree = copy_tree(folder / "tree")
    built = {__version__: build_wheel(tree, folder / "first")}
    init = tree / "wire" / "__init__.py"
    init.write_text(init.read_text().replace(f'"{__version__}"', f'"{following}"'))
    built[following] = build_wheel(tree, folder / "second")
    return built


def altered(wheel: Path, folder: Path, version: str, name: str, before: str, after: str) -> Path:
    """A wheel of another version with something changed in one of its modules."""
    folder.mkdir()
    own = wheel.name.split("-")[1]
    target = folder / wheel.name.replace(own, version)
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for member in source.namelist():
            data = source.read(member)
            if member == "wire/__init__.py":
                data = data.replace(f'"{own}"'.encode(), f'"{version}"'.encode())
            if member == name:
                assert before.encode() in data
                data = data.replace(before.encode(), after.encode(), 1)
            made.writestr(member, data)
    return folder
