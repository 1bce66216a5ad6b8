"""Compiles the C parts into the wheel, when there is a compiler. Everything else is in pyproject.toml.

The kernels and the coder of masks are plain C behind ctypes and know nothing of Python, so one wheel serves
every Python 3 of a platform: its tag is py3-none-<platform>, for the machine that $CC compiles for. Without a
compiler the wheel is py3-none-any, with the build tag 0.nokernels, and devices train with the onnx runtime and
code masks in Python. A compiler that was named in $CC has to work.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated build does not look here by itself

from edge_client.kernels import build as kernels
from wire import compiler
from wire.errors import RuntimeMissing
from wire.native import build as coder

NO_KERNELS = """
hidenseek: THE SPARSE KERNELS AND THE CODER OF MASKS WERE NOT BUILT: {reason}
hidenseek: Devices of this installation train with the onnx runtime (pip install onnxruntime), and code masks in
hidenseek: Python; both are slower.
hidenseek: To get the kernels, install gcc (Debian: apt-get install gcc libc6-dev), then hidenseek once more with
hidenseek: pip install --force-reinstall --no-cache-dir (pip has kept this wheel).
"""


class BuildPy(build_py):
    """Copy the modules, then compile the C parts beside them (in an editable installation: in the source tree)."""

    libraries: tuple[Path, ...] = ()

    def run(self) -> None:
        """Build; `libraries` then says which there are."""
        super().run()
        built: list[Path] = []
        try:
            for part in (coder, kernels):
                built += part.build(self._folder(part.FOLDER))
            self.libraries = tuple(built)
        except RuntimeMissing as error:
            if os.environ.get("CC"):
                raise CompileError(f"the compiler named in $CC does not build the kernels: {error}") from error
            sys.stderr.write(NO_KERNELS.format(reason=error.what))

    def _folder(self, source: Path) -> Path:
        """Where the libraries of a part go."""
        if self.editable_mode:
            return source
        folder = Path(self.build_lib) / source.relative_to(Path.cwd())
        for old in folder.glob("*.so"):  # of an earlier build, maybe for another machine
            old.unlink()
        return folder

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Everything this command writes."""
        return [*super().get_outputs(include_bytecode), *map(str, self.libraries)]


class BdistWheel(bdist_wheel):
    """A wheel for every Python 3, and for the platform that the kernels were compiled for."""

    def run(self) -> None:
        """Build first: whether there are kernels decides the wheel's name."""
        self.run_command("build")
        if not self._libraries():
            self.build_number = "0.nokernels"
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """(python, abi, platform)."""
        platform = super().get_tag()[2]
        libraries = self._libraries()
        if not libraries:
            platform = "any"
        elif not self.plat_name_supplied:
            machine = kernels.COMPILER.machine(kernels.COMPILER.find())
            platform = compiler.platform_tag(libraries, machine) or platform
        return "py3", "none", platform

    def _libraries(self) -> tuple[Path, ...]:
        found: tuple[Path, ...] = self.get_finalized_command("build_py").libraries
        return found


class MaybeBinary(Distribution):
    """A distribution that is installed where those with compiled parts are."""

    def has_ext_modules(self) -> bool:
        """Whether it may have compiled parts."""
        return True


setup(distclass=MaybeBinary, cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel})
