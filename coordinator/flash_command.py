"""`hidenseek flash`: from a stock image to a card that joins the federation by itself."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command
from wire.errors import ConfigError, ImageError, UnknownName

if TYPE_CHECKING:
    from rich.console import Console

    from coordinator import cards, device_cards
    from coordinator.config import DevicesFile
    from export.image.blockdevices import Disk
    from export.image.customise import Card

Subparsers = argparse._SubParsersAction
FILE_SUFFIX = ".img"
DEPLOY = Path("deploy")

EXAMPLES = """
examples:
  hidenseek flash --list                                          # cards that are in a reader now
  hidenseek flash pi-01 --image raspios-lite-arm64.img.xz --to /dev/sdX
  hidenseek flash pi-01 --image raspios-lite-arm64.img.xz --to pi-01.img     # for another tool, or a virtual machine
  hidenseek flash --all --image raspios-lite-arm64.img.xz --to cards/        # one file for each device
  hidenseek flash pi-01 --build --to /dev/sdX       # an image of our own, built of Debian's packages once (15 minutes)
  HIDENSEEK_WIFI_PASSWORD=... hidenseek flash pi-02 --image ubuntu-server.img.xz --to /dev/mmcblk0 --yes

Takes 64-bit Raspberry Pi OS (bookworm, trixie), Debian and Ubuntu, as they were downloaded: .img, .xz, .gz or .zst. The
image is never changed. Host name, user, SSH key, Wi-Fi, country, address, locale, time zone, swap (off, zram), GPU
memory, limits of clock and temperature, and power saving come from `flash:` in devices.yaml (docs/flash.md). Needs
mtools, e2fsprogs and fdisk; root only to write to a card, and asks for it then.

--build makes a small image for the Pi 3, 4 and Zero 2 W of Debian's packages, and keeps it in the cache; interrupted,
it goes on where it was. That also needs mmdebstrap, arch-test, zstd, and qemu-user-static on other than ARM machines.
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
    parser.add_argument(
        "--build", action="store_true", help="instead of --image: our own, of Debian's packages; alone it is only built"
    )
    parser.add_argument("--again", action="store_true", help="with --build: of today's packages, though there is one")
    parser.add_argument("--to", metavar="WHERE", help="/dev/NAME of a card, a file that ends in .img, or a folder/")
    parser.add_argument(
        "--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="settings and devices"
    )
    parser.add_argument(
        "--deploy",
        type=Path,
        metavar="DIR",
        help="what broker init wrote: devices claim their accounts there at first boot (default ./deploy, if there is "
        "one and no broker is named)",
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

    from coordinator import cards, config, device_cards
    from export.image import progress

    if arguments.list:
        return _list()
    console = Console(stderr=True)
    if arguments.build and arguments.image is not None:
        raise ConfigError("two images: --image and --build", where="--build", hint="Leave one out")
    if arguments.again and not arguments.build:
        raise ConfigError("only with --build", where="--again")
    if arguments.build and not (arguments.device or arguments.all or arguments.to):
        print(_build(console, arguments))
        return 0
    for name in ("to",) if arguments.build else ("image", "to"):
        if getattr(arguments, name) is None:
            raise ConfigError("missing", where=f"--{name}", hint="hidenseek flash --help has examples")
    settings = config.load(arguments.config)
    names = _names(arguments, settings)
    where = _where(arguments, settings)
    made = {name: device_cards.card(arguments.config, settings, name, where) for name in names}
    again = [name for name in names if device_cards.enrolled(where.deploy, name)]
    block = arguments.to.startswith("/dev/")
    if block:
        _check_single(names)
        cards.check_target(Path(arguments.to), 0, arguments.image)
    targets = {} if block else _files(arguments.to, names)
    if arguments.build:
        arguments.image = _build(console, arguments)
    with progress.shown(console) as tell:
        base = cards.prepare(arguments.image, arguments.wheels or [Path("dist")], tell)
    for card in made.values():
        cards.check(base, card)
    console.print(f"{base.system.title}, {base.system.machine}, settings by {base.system.mechanism}", highlight=False)
    if block:
        _write_card(console, arguments, base, made[names[0]], where)
    else:
        for name in names:
            with console.status(f"{name}: settings"):
                cards.make(base, device_cards.with_token(made[name], where.deploy), targets[name])
            print(f"{name}: {targets[name]}")
    if where.deploy is not None:
        _tell_waiting(where.deploy)
        console.print(f"waited for: {', '.join(names)}; see them enrol with: hidenseek fleet list", highlight=False)
    for name in again:
        console.print(
            f"{name} had enrolled with an earlier card, which is worth nothing now; a coordinator that does not "
            f"see {where.deploy} has to forget its key: hidenseek fleet forget {name}",
            highlight=False,
        )
    return 0


def _build(console: Console, arguments: argparse.Namespace) -> Path:
    """Our own image, and a line of what it is."""
    import json

    from coordinator import cards
    from export.image import build, progress

    with progress.shown(console, "packages") as tell:
        image = cards.own_image(tell, again=arguments.again)
    made = json.loads(build.manifest_path(image).read_text())
    console.print(
        f"{image.name}: {made['bytes'] / 1e6:.0f} MB, {len(made['packages'])} packages of Debian {made['suite']} "
        f"of {made['built'][:10]}; newer ones with --again",
        highlight=False,
        soft_wrap=True,
    )
    return image


def _tell_waiting(deploy: Path) -> None:
    from coordinator.brokers import deployment as deployments
    from coordinator.brokers import up

    if not up.running_nodes(deploy, deployments.load(deploy)):
        print(
            f"no broker of {deploy} runs here: start it with hidenseek broker up, or have the one elsewhere read its "
            f"accounts again ({deploy}/README.md, Later)",
            file=sys.stderr,
        )


def _where(arguments: argparse.Namespace, settings: DevicesFile) -> device_cards.Where:
    """A broker that was named is taken as it is; else the one of --deploy, or of ./deploy if that is one."""
    from coordinator import device_cards

    deploy: Path | None = arguments.deploy
    if deploy is None and not (arguments.broker or settings.flash.broker) and DEPLOY.is_dir():
        deploy = DEPLOY
    return device_cards.Where(broker=arguments.broker or "", ca=arguments.ca, deploy=deploy)


def _write_card(
    console: Console, arguments: argparse.Namespace, base: cards.Base, card: Card, where: device_cards.Where
) -> None:
    from coordinator import cards, device_cards

    device = Path(arguments.to)
    disk = cards.check_target(device, base.path.stat().st_size, arguments.image)
    _confirm(disk, yes=arguments.yes)
    with cards.temporary(base, device_cards.with_token(card, where.deploy)) as image:
        if os.access(device, os.W_OK):
            from export.image import progress, write

            with progress.shown(console) as tell:
                digest = write.to_device(image, device, tell)
            console.print(f"read back: SHA-256 {digest}", highlight=False, soft_wrap=True)
        else:
            _as_root(image, device)
    print(f"{card.service.device}: {disk.in_words()}")


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
