"""Settings for systems without cloud-init: most are written into the image, the rest is a script that runs once.

systemd runs the script before anything else and starts the machine again: `systemd.run` on the kernel's command
line (systemd-run-generator(8)), as Raspberry Pi Imager does. It lies on the root partition, mode 0700. Our own image
has a unit for it instead, which saves a whole boot: nothing that has started by then would have to be told anew.
"""

from __future__ import annotations

import shlex
from typing import Literal

from export.image import networkd
from export.image.settings import CardSettings
from export.image.tree import Tree
from wire.errors import ImageError

Network = Literal["NetworkManager", "networkd", ""]  # what is told of Wi-Fi and addresses; "" for nothing
SCRIPT = "/opt/hidenseek/setup/firstrun.sh"
UNIT = "/etc/systemd/system/hidenseek-firstrun.service"
UNIT_TEXT = f"""\
[Unit]
Description=What this card was told, done once
ConditionPathExists={SCRIPT}
After=systemd-remount-fs.service
Before=ssh.service

[Service]
Type=oneshot
# Its keys for SSH and a locale take a slow board minutes, in which the device can join.
CPUWeight=idle
ExecStart={SCRIPT}
"""
ARGUMENTS = (
    f"systemd.run={SCRIPT}",
    "systemd.run_success_action=reboot",
    "systemd.run_failure_action=reboot",
    "systemd.unit=kernel-command-line.target",
)


def files(settings: CardSettings, *, network: Network) -> Tree:
    """What goes into the root partition.

    Raises:
        ImageError: if the system cannot be told of a network.
    """
    tree = Tree()
    tree.add("/etc/hostname", f"{settings.hostname}\n")
    tree.add(
        "/etc/hosts",
        f"127.0.0.1\tlocalhost\n127.0.1.1\t{settings.hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        "ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    )
    tree.add("/etc/timezone", f"{settings.timezone}\n")
    tree.links["/etc/localtime"] = f"/usr/share/zoneinfo/{settings.timezone}"
    if settings.wifi or settings.static:
        match network:
            case "NetworkManager":
                connection = _connection(settings)
                tree.add("/etc/NetworkManager/system-connections/hidenseek.nmconnection", connection, 0o600)
            case "networkd":
                tree.merge(networkd.files(settings))
            case "":
                raise ImageError(
                    "Wi-Fi and static addresses of this system need NetworkManager, systemd-networkd or cloud-init, "
                    "and it has none of them",
                    hint="Take Raspberry Pi OS or --build, or leave out wifi and address",
                )
    tree.folders["/opt/hidenseek/setup"] = 0o700
    tree.add(SCRIPT, _script(settings), 0o700)
    return tree


def command_line(before: bytes) -> bytes:
    """The kernel's command line with the script in it; twice is as once.

    Raises:
        ImageError: if something else is to be run already.
    """
    words = before.decode(errors="replace").split()
    if any(word.startswith("systemd.run=") and word != ARGUMENTS[0] for word in words):
        raise ImageError(
            "another script is to be run at its first boot: somebody has customised it before",
            hint="Take a fresh image, as it was downloaded",
        )
    return " ".join([*(word for word in words if word not in ARGUMENTS), *ARGUMENTS]).encode() + b"\n"


def _connection(settings: CardSettings) -> str:
    """A NetworkManager connection (nm-settings-keyfile(5)): wireless if there is one, else of the cable."""
    wifi, static = settings.wifi, settings.static
    sections: dict[str, dict[str, str]] = {
        "connection": {"id": "hidenseek", "type": "wifi" if wifi else "ethernet", "autoconnect-priority": "10"}
    }
    if wifi:
        # As bytes, so that no character of a name means anything to the file.
        sections["wifi"] = {"ssid": "".join(f"{byte};" for byte in wifi.ssid.encode()), "mode": "infrastructure"}
        if wifi.hidden:
            sections["wifi"]["hidden"] = "true"
        sections["wifi-security"] = {"key-mgmt": "wpa-psk", "psk": wifi.psk}
    family, other = "ipv4", "ipv6"
    if static and static.address.version == 6:
        family, other = other, family
    sections[family] = {"method": "auto"}
    sections[other] = {"method": "auto"}
    if static:
        sections[family] = {"method": "manual", "address1": f"{static.address},{static.gateway}"}
        if static.dns:
            sections[family]["dns"] = "".join(f"{server};" for server in static.dns)
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in rows.items()) for name, rows in sections.items()
    )


def _script(settings: CardSettings) -> str:
    """What only the system's own programs can do. Every step may fail without keeping the others from being done."""
    user, locale = settings.user, settings.locale
    keys = "".join(f"{key}\n" for key in settings.ssh_keys)
    lines = [
        "#!/bin/sh",
        "# Written by hidenseek flash; runs once, then removes itself and starts the machine again.",
        "set +e",
        "export DEBIAN_FRONTEND=noninteractive",
        f"user={shlex.quote(user)}",
        "mount -o remount,rw / 2>/dev/null",
        "# Raspberry Pi OS renames its first user, and stops asking for one.",
        "if [ -x /usr/lib/userconf-pi/userconf ]; then /usr/lib/userconf-pi/userconf \"$user\" '!'; fi",
        'id "$user" >/dev/null 2>&1 || useradd -m -s /bin/bash "$user"',
        "for group in users adm dialout audio video plugdev gpio i2c spi netdev sudo; do",
        '  getent group $group >/dev/null && usermod -aG $group "$user"',
        "done",
        "if [ -d /etc/sudoers.d ]; then",
        '  echo "$user ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/010_hidenseek; chmod 0440 /etc/sudoers.d/010_hidenseek',
        "fi",
        "systemctl disable userconfig.service 2>/dev/null",
        'home=$(getent passwd "$user" | cut -d: -f6)',
    ]
    if keys:
        lines += [
            'install -d -m 700 -o "$user" -g "$(id -gn "$user")" "$home/.ssh"',
            f'printf %s {shlex.quote(keys)} >"$home/.ssh/authorized_keys"',
            'chown "$user": "$home/.ssh/authorized_keys"; chmod 600 "$home/.ssh/authorized_keys"',
            "mkdir -p /etc/ssh/sshd_config.d",
            "echo 'PasswordAuthentication no' >/etc/ssh/sshd_config.d/10-hidenseek.conf",
            "systemctl enable ssh.service 2>/dev/null",
        ]
    lines += [
        "# Host keys in the image would be everybody's.",
        "[ -x /usr/bin/ssh-keygen ] && { rm -f /etc/ssh/ssh_host_*; ssh-keygen -A; }",
    ]
    if locale not in ("C.UTF-8", "C", "POSIX"):
        name = shlex.quote(locale)
        lines += [
            f"if ! locale -a 2>/dev/null | grep -qi {shlex.quote(locale.replace('-', '').lower())}; then",
            f"  [ -f /etc/locale.gen ] && sed -i 's/^# *\\('{name}' \\)/\\1/' /etc/locale.gen && locale-gen",
            "fi",
            f"update-locale LANG={name}",
        ]
    if wifi := settings.wifi:
        lines += [
            f"[ -x /usr/bin/raspi-config ] && raspi-config nonint do_wifi_country {wifi.country}",
            "rfkill unblock wifi 2>/dev/null",
            'for switch in /var/lib/systemd/rfkill/*:wlan; do [ -e "$switch" ] && echo 0 >"$switch"; done',
        ]
    lines += [
        "for boot in /boot/firmware /boot; do",
        '  if [ ! -f "$boot/cmdline.txt" ]; then mount "$boot" 2>/dev/null; fi',
        '  [ -f "$boot/cmdline.txt" ] || continue',
        '  mount -o remount,rw "$boot" 2>/dev/null',
        *(f"  sed -i 's| *{argument}||' \"$boot/cmdline.txt\"" for argument in ARGUMENTS),
        "done",
        f"rm -f {SCRIPT}",
        "sync",
        "exit 0",
        "",
    ]
    return "\n".join(lines)
