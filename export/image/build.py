"""Our own image, built from Debian packages by mmdebstrap; as any user, in the user's cache, in steps that are kept.

Maintainer scripts of a foreign processor run under qemu-user, which takes a quarter of an hour. So what is installed
together is kept as a tar file (a layer); an interrupted build goes on after the last of them. The cache also gets a
manifest beside the image: every package with its version and the SHA-256 of its file, which apt has checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path, PurePosixPath

from export.image import pack, recipe, tools
from export.image.progress import Progress
from wire.errors import ImageError, RuntimeMissing

PROGRAMS = ("mmdebstrap", "arch-test", *pack.PROGRAMS)
OVERLAY = "overlay.part"
DPKG_INSIDE = (
    "APT::Install-Recommends=false", "Dir::Bin::dpkg=env", "DPkg::Options::=--unset=TMPDIR", "DPkg::Options::=dpkg",
    "DPkg::Use-Pty=false",
)  # fmt: skip
SUBORDINATE = (Path("/etc/subuid"), Path("/etc/subgid"))
IDS = 65536  # as many as a Debian system has
STOPS_S = 30.0  # mmdebstrap takes its folder away when it is told to stop
STEP = re.compile(r"^(Unpacking|Setting up|Processing triggers for) ([a-z0-9][a-z0-9.+-]*)")
TROUBLE = re.compile(r"^(E|dpkg: error)\b")


def image(folder: Path, progress: Progress, *, again: bool = False) -> Path:
    """Build our image, or take what an earlier call has built of the same recipe.

    Args:
        folder: of the cache; made if missing. One process at a time may work there.
        progress: told what is done.
        again: build it of today's packages though there is one, which stays until then.

    Returns:
        the image, packed with zstd; its manifest and the log of its making lie beside it.

    Raises:
        RuntimeMissing: if programs that it takes are not installed; names Debian's packages.
        ImageError: if a package cannot be installed, or there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = path(folder)
    if target.exists() and not again:
        return target
    check()
    began_s = time.monotonic()
    for earlier in folder.glob("*.part"):  # of a call that was killed
        shutil.rmtree(earlier) if earlier.is_dir() else earlier.unlink()
    root = _layers(folder, progress)
    progress("packing the image", 0, 0)
    pack.image(root, recipe.after(), target)
    manifest = _manifest(root, target, round(time.monotonic() - began_s, 1))
    manifest_path(target).write_text(json.dumps(manifest, indent=1) + "\n")
    for layer in folder.glob("*.tar"):  # 600 MB that nobody needs now
        layer.unlink()
    return target


def path(folder: Path) -> Path:
    """Where the image of this recipe is, once it is built."""
    return folder / f"hidenseek-{recipe.SUITE}-{recipe.ARCHITECTURE}-{recipe.image_key()}.img.zst"


def manifest_path(built: Path) -> Path:
    """Where it is said what an image is made of."""
    return built.with_name(built.name.removesuffix(".img.zst") + ".json")


def check() -> None:
    """Whether this machine can build.

    Raises:
        RuntimeMissing: if not; names all that has to be installed, or done, at once.
    """
    wanted = list(PROGRAMS)
    if os.geteuid() != 0:
        wanted += ["fakeroot", "newuidmap", "unshare"]
    tools.check(wanted)
    if os.geteuid() != 0:
        _check_namespaces(pwd.getpwuid(os.getuid()).pw_name)
    done = subprocess.run([tools.find("arch-test"), recipe.ARCHITECTURE], capture_output=True, check=False)
    if done.returncode:
        raise RuntimeMissing(
            f"programs for {recipe.ARCHITECTURE} do not run on this {platform.machine()}: "
            "qemu-user is not installed, or not registered with the kernel",
            hint="sudo apt-get install qemu-user-static binfmt-support; if they are: sudo mount -t binfmt_misc "
            "binfmt_misc /proc/sys/fs/binfmt_misc; sudo update-binfmts --enable qemu-aarch64",
        )


def _check_namespaces(user: str) -> None:
    """Whether an ordinary user may be root of a system in a folder; raises RuntimeMissing if not."""
    for file in SUBORDINATE:
        text = file.read_text() if file.exists() else ""
        rows = [line.split(":") for line in text.splitlines() if line.count(":") == 2]
        if not any(
            name in (user, str(os.getuid())) and int(count) >= IDS for name, _, count in rows if count.isdigit()
        ):
            raise RuntimeMissing(
                f"'{user}' has no {IDS:,} subordinate ids, which another user than root builds with",
                where=str(file),
                hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}, or other ids if "
                "those are somebody's; or build as root",
            )
    done = subprocess.run([tools.find("unshare"), "--user", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeMissing(
            f"'{user}' may make no user namespace ({done.stderr.strip()[:120]})",
            hint="Allow it: sudo sysctl kernel.unprivileged_userns_clone=1 (Debian), or "
            "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); or build as root",
        )


def _layers(folder: Path, progress: Progress) -> Path:
    """The root file system as a tar file; begins after the last layer that is there."""
    paths = [folder / f"{number}-{recipe.key(number)}.tar" for number in range(1, len(recipe.LAYERS) + 1)]
    done = max((number for number, path in enumerate(paths, 1) if path.exists()), default=0)
    for number in range(done, len(recipe.LAYERS)):
        layer = recipe.LAYERS[number]
        title = f"{number + 1} of {len(recipe.LAYERS)}, {layer.title}"
        draft = paths[number].with_suffix(".part")
        words = _first(draft) if number == 0 else _further(folder, paths[number - 1], draft, layer)
        try:
            _run(words, folder / f"{number + 1}-{recipe.key(number + 1)}.log", title, layer.effort_about, progress)
            draft.replace(paths[number])
        finally:
            for one in (draft, folder / OVERLAY):
                one.unlink(missing_ok=True)
        if number:
            paths[number - 1].unlink()
    return paths[-1]


def _mmdebstrap() -> list[str]:
    # unshare also as root: mounts are in a namespace of their own, and none stays behind whatever happens.
    words = [tools.find("mmdebstrap"), "--verbose", "--mode=unshare", f"--architectures={recipe.ARCHITECTURE}"]
    return [*words, "--format=tar"]


def _first(draft: Path) -> list[str]:
    words = [*_mmdebstrap(), "--variant=minbase", "--skip=output/dev"]
    words += [f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in recipe.LEFT_OUT]
    words += [f"--dpkgopt=path-include={recipe.LICENCES}", "--dpkgopt=force-unsafe-io", "--dpkgopt=force-confold"]
    words += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
    words += [f"--include={','.join(recipe.LAYERS[0].packages)}", recipe.SUITE, str(draft)]
    return [*words, *recipe.sources().splitlines()]


def _further(folder: Path, earlier: Path, draft: Path, layer: recipe.Layer) -> list[str]:
    """On what is there; mmdebstrap only mounts, and takes everything away again."""
    overlay = folder / OVERLAY
    pack.tar(recipe.before(), overlay)
    words = [*_mmdebstrap(), "--variant=custom", "--skip=output/dev"]
    words += [f"--setup-hook=tar-in {shlex.quote(str(one))} /" for one in (earlier, overlay)]
    # By this machine's own apt, as mmdebstrap does it: emulated it takes a minute to read its lists.
    apt = "APT_CONFIG=$MMDEBSTRAP_APT_CONFIG"
    into = " ".join(f"-o{one}" for one in (*DPKG_INSIDE, 'DPkg::Chroot-Directory="$1"'))
    steps = [
        f"{apt} apt-get {into} --yes install {' '.join(layer.packages)}",
        *(f'chroot "$1" {shlex.join(command)}' for command in layer.commands),
        f'mkdir -p "$1{PurePosixPath(recipe.PACKAGES).parent}"',
        "chroot \"$1\" dpkg-query --show --showformat='${binary:Package}=${Version}\\n' "
        f"| {apt} xargs apt-cache show --no-all-versions "
        f"| grep -E '^(Package|Version|Architecture|SHA256):' >\"$1{recipe.PACKAGES}\"",
    ]
    words += [f"--customize-hook={one}" for one in steps]
    return [*words, recipe.SUITE, str(draft), *recipe.sources().splitlines()]


def _run(words: list[str], log: Path, title: str, about: int, progress: Progress) -> None:
    """Run mmdebstrap to its end, its words in a log; raises ImageError if it fails, with what it said."""
    environment = {name: os.environ[name] for name in ("HOME", "TMPDIR", "http_proxy") if name in os.environ}
    programs = os.pathsep.join([os.environ.get("PATH", ""), *tools.FOLDERS])
    environment |= {"PATH": programs, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done, owed, trouble = 0, 0, ""
    with (
        log.open("w", buffering=1) as file,
        subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            progress(title, 0, about)
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip().rpartition("\r")[2]
                file.write(line + "\n")
                if step := STEP.match(line):
                    if step[1] == "Setting up":  # is said when it begins; unpacking is nothing beside it
                        much = recipe.effort(step[2])
                        done, owed = done + owed + much // 2, much - much // 2
                    progress(title, done, max(about, done), f"{step[1][0].lower()}{step[1][1:]} {step[2]}")
                if not trouble and TROUBLE.match(line):  # what comes after it comes of it
                    trouble = line
        except BaseException:
            # All of them: mmdebstrap alone would wait for the package that is being installed, emulated.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.communicate(timeout=STOPS_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise ImageError(
            f"{title}: mmdebstrap ended with {process.returncode} ({trouble or 'it said nothing'})"[:500],
            where=str(log),
            hint="The log says more. Started again, it goes on with this step",
        )


def _manifest(root: Path, built: Path, seconds: float) -> dict[str, object]:
    """What an image is made of."""
    with tarfile.open(root) as archive:
        member = archive.extractfile(f".{recipe.PACKAGES}")
        assert member is not None
        text = member.read().decode()
    return {
        "image": built.name,
        "sha256": _sha256(built),
        "bytes": built.stat().st_size,
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": seconds,
        "suite": recipe.SUITE,
        "architecture": recipe.ARCHITECTURE,
        "sources": recipe.sources().splitlines(),
        "packages": packages(text),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packages(text: str) -> list[dict[str, str]]:
    """Rows of apt-cache show as one entry for each package: name, version, architecture, SHA-256 of its file."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if name == "Package":
            found.append({})
        if found:
            found[-1][name.lower()] = value
    return sorted(found, key=lambda one: one["package"])
