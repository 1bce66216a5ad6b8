"""`hidenseek flash`: from a stock image to a card that joins the federation by itself."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command
from wire.errors import ConfigError, ImageError, UnknownName

if TYPE_CHECKING:
    from rich.console import Console

    from coordinator import cards
    from coordinator.config import DevicesFile
    from export.image.blockdevices import Disk
    from export.image.customise import Card

Subparsers = argparse._SubParsersAction
FILE_SUFFIX = ".img"
USUAL_MB, LEAST_MB = 256, 48

EXAMPLES = """
examples:
  hidenseek flash --list                                          # cards that are in a reader now
  hidenseek flash pi-01 --image raspios-lite-arm64.img.xz --to /dev/sdX
  hidenseek flash pi-01 --image raspios-lite-arm64.img.xz --to pi-01.img     # for another tool, or a virtual machine
  hidenseek flash --all --image raspios-lite-arm64.img.xz --to cards/        # one file for each device
  HIDENSEEK_WIFI_PASSWORD=... hidenseek flash pi-02 --image ubuntu-server.img.xz --to /dev/mmcblk0 --yes

Takes 64-bit Raspberry Pi OS (bookworm, trixie), Debian and Ubuntu, as they were downloaded: .img, .xz, .gz or .zst. The
image is never changed. Host name, user, SSH key, Wi-Fi, address and the rest come from `flash:` in devices.yaml
(docs/flash.md). Needs mtools, e2fsprogs and fdisk; root only to write to a card, and asks for it then.
"""


def add_flash(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek flash`."""
    parser = subparsers.add_parser(
        "flash",
        help="write an SD card that joins by itself",
        description="Put the client and a device's settings into a stock image, and write it to a card or a file: the "
        "board boots, joins the federation and trains, without a monitor, keyboard or network of packages.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("device", nargs="*", metavar="ID", help="a device of devices.yaml")
    parser.add_argument("--all", action="store_true", help="every device of devices.yaml, each into a file")
    parser.add_argument("--list", action="store_true", help="only list the cards that may be written to")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the stock image")
    parser.add_argument("--to", metavar="WHERE", help="/dev/NAME of a card, a file that ends in .img, or a folder/")
    parser.add_argument(
        "--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="settings and devices"
    )
    parser.add_argument("--broker", metavar="URL", help="mqtt[s]://HOST[:PORT], before what devices.yaml says")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificate authority of an mqtts broker")
    parser.add_argument(
        "--wheels",
        type=Path,
        action="append",
        metavar="DIR",
        help="folder with our wheels (default dist, `make wheels`)",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for the card's name once more")
    parser.set_defaults(run=_flash)


def _flash(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import cards, config

    if arguments.list:
        return _list()
    console = Console(stderr=True)
    for name in ("image", "to"):
        if getattr(arguments, name) is None:
            raise ConfigError("missing", where=f"--{name}", hint="hidenseek flash --help has examples")
    settings = config.load(arguments.config)
    names = _names(arguments, settings)
    made = {name: _card(arguments, settings, name) for name in names}
    block = arguments.to.startswith("/dev/")
    if block:
        _check_single(names)
        cards.check_target(Path(arguments.to), 0, arguments.image)
    targets = {} if block else _files(arguments.to, names)
    with _progress(console) as progress:
        base = cards.prepare(arguments.image, arguments.wheels or [Path("dist")], progress)
    console.print(f"{base.system.title}, {base.system.machine}, settings by {base.system.mechanism}", highlight=False)
    if block:
        return _write_card(console, arguments, base, made[names[0]])
    for name in names:
        with console.status(f"{name}: settings"):
            cards.make(base, made[name], targets[name])
        print(f"{name}: {targets[name]}")
    return 0


def _write_card(console: Console, arguments: argparse.Namespace, base: cards.Base, card: Card) -> int:
    from coordinator import cards

    device = Path(arguments.to)
    disk = cards.check_target(device, base.path.stat().st_size, arguments.image)
    _confirm(disk, yes=arguments.yes)
    with cards.temporary(base, card) as image:
        if os.access(device, os.W_OK):
            from export.image import write

            with _progress(console) as progress:
                digest = write.to_device(image, device, progress)
            console.print(f"read back: SHA-256 {digest}", highlight=False)
        else:
            _as_root(image, device)
    print(f"{card.service.device}: {disk.in_words()}")
    return 0


def _as_root(image: Path, device: Path) -> None:
    """Only the writing, by sudo."""
    from export.image import tools

    code = "from export.image import write_alone; raise SystemExit(write_alone.main())"
    words = [tools.find("sudo"), "--", sys.executable, "-c", code, str(image), str(device)]
    if subprocess.run(words, check=False).returncode:
        raise ImageError("was not written", where=str(device), hint="The line above says why")


def _confirm(disk: Disk, *, yes: bool) -> None:
    """The person has to say which card is meant: names of disks change from one moment to the next.

    Raises:
        ImageError: if another name, or none, is typed.
    """
    if yes:
        return
    print(f"everything on it will be lost: {disk.in_words()}", file=sys.stderr)
    if not sys.stdin.isatty():
        raise ConfigError("nobody is here to be asked", where=f"/dev/{disk.name}", hint="Add --yes")
    typed = input(f"type {disk.name} to go on: ").strip()
    if typed.removeprefix("/dev/") != disk.name:
        raise ImageError(f"'{typed}' is not {disk.name}: nothing was written", where=f"/dev/{disk.name}")


def _list() -> int:
    from export.image.blockdevices import Machine

    found = Machine().candidates()
    for disk in found:
        used = f"; mounted on {', '.join(disk.mounts)}" if disk.mounts else ""
        print(f"{disk.in_words()}{used}")
    if not found:
        print("no removable disk is there: put the card into its reader")
    return 0


def _names(arguments: argparse.Namespace, settings: DevicesFile) -> list[str]:
    """Which devices are meant.

    Raises:
        ConfigError: if none are, or two ways of saying so.
        UnknownName: if one is not in devices.yaml.
    """
    from wire.errors import did_you_mean

    if arguments.all == bool(arguments.device):
        raise ConfigError("name devices, or say --all", where="ID")
    if not settings.devices:
        raise ConfigError("no devices listed", where=str(arguments.config), hint="List them under `devices:`")
    for name in arguments.device:
        if name not in settings.devices:
            raise UnknownName(
                f"no device is called '{name}'",
                where=str(arguments.config),
                hint=did_you_mean(name, sorted(settings.devices)),
            )
    return list(dict.fromkeys(arguments.device)) or sorted(settings.devices)


def _check_single(names: list[str]) -> None:
    if len(names) > 1:
        raise ConfigError(
            f"{len(names)} devices on one card", where="--to", hint="Write one after the other, or into a folder/"
        )


def _files(to: str, names: list[str]) -> dict[str, Path]:
    """A file for each device; raises ConfigError if that cannot be."""
    path = Path(to)
    if to.endswith("/") or path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return {name: path / f"{name}{FILE_SUFFIX}" for name in names}
    if len(names) > 1:
        raise ConfigError(f"one file for {len(names)} devices", where="--to", hint="Name a folder: --to cards/")
    if path.suffix != FILE_SUFFIX:
        raise ConfigError(
            f"'{to}' is neither /dev/NAME, nor a file that ends in {FILE_SUFFIX}, nor a folder/", where="--to"
        )
    if not path.parent.is_dir():
        raise ConfigError("no such folder", where=str(path.parent), hint="Make it first")
    return {names[0]: path}


def _card(arguments: argparse.Namespace, settings: DevicesFile, name: str) -> Card:
    """All that one device's card is told.

    Raises:
        ConfigError: naming the device and the setting.
    """
    from export.image.customise import Card
    from export.image.service import Service

    device = settings.devices[name]
    common = settings.flash
    wanted = device.flash.over(common) if device and device.flash else common
    folder = arguments.config.parent
    try:
        broker = arguments.broker or wanted.broker
        if not broker:
            raise ConfigError("no broker", where="broker", hint="Name one: --broker mqtts://HOST")
        _check_broker(broker)
        ca = arguments.ca or (folder / wanted.ca if wanted.ca else None)
        return Card(
            settings=wanted.card(name, folder),
            service=Service(
                device=name,
                federation=settings.federation.name,
                broker=broker,
                ca=_read(ca) if ca else None,
                profile=(device.profile if device else None) or "",
                threads=wanted.threads,
                memory_mb=wanted.memory_mb or _memory_mb(settings, name),
            ),
            data=wanted.recordings(folder),
        )
    except ConfigError as error:
        raise ConfigError(
            f"{error.where}: {error.what}" if error.where else error.what,
            where=f"{arguments.config}: flash of {name}",
            hint=error.hint,
        ) from error


def _memory_mb(settings: DevicesFile, name: str) -> int:
    """Where the kernel ends the program: what its budget allows is still to be seen, and reported, before that."""
    peak_mb = settings.budget_of(name).peak_mb
    return max(LEAST_MB, int(peak_mb * 1.5)) if peak_mb else USUAL_MB


def _check_broker(url: str) -> None:
    from wire.mqtt import parse_url

    parse_url(url)
    if re.search(r"//[^/]*:[^/]*@", url):
        raise ConfigError("it has a password in it", where="broker", hint="Leave user and password out")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where="ca") from error


@contextmanager
def _progress(console: Console) -> Iterator[cards.Progress]:
    """A bar with rate and time left for whatever is done, one after the other."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        current = bar.add_task("", total=None)

        def tell(step: str, done: int, total: int) -> None:
            if bar.tasks[-1].description != step:
                bar.reset(current, description=step)
            bar.update(current, completed=done, total=total or None)

        yield tell
