"""Wi-Fi and addresses for systemd-networkd and wpa_supplicant, as our own image has them.

Source: systemd.network(5), wpa_supplicant.conf(5).
"""

from __future__ import annotations

from export.image.settings import CardSettings
from export.image.tree import Tree

RADIO = "wlan0"  # a board's own keeps the kernel's name; of several, the first
SERVICE = f"wpa_supplicant@{RADIO}.service"


def files(settings: CardSettings) -> Tree:
    """What goes into the root partition; DHCP where no address is given is the image's own."""
    tree = Tree()
    wifi, static = settings.wifi, settings.static
    if wifi:
        lines = [
            "ctrl_interface=/run/wpa_supplicant",
            f"country={wifi.country}",
            "network={",
            f"  ssid={wifi.ssid.encode().hex()}",  # as bytes: no character of a name means anything to the file
            f"  psk={wifi.psk}",
            *(["  scan_ssid=1"] if wifi.hidden else []),
            "}",
        ]
        tree.add(f"/etc/wpa_supplicant/wpa_supplicant-{RADIO}.conf", "\n".join(lines) + "\n", 0o600)
        unit = "/usr/lib/systemd/system/wpa_supplicant@.service"
        tree.links[f"/etc/systemd/system/multi-user.target.wants/{SERVICE}"] = unit
    if static:
        # The other family is not left out: an address that is given says nothing of it.
        other = "ipv6" if static.address.version == 4 else "ipv4"
        lines = [
            "[Match]",
            f"Name={RADIO}" if wifi else "Type=ether",
            "",
            "[Network]",
            f"Address={static.address}",
            f"Gateway={static.gateway}",
            *(f"DNS={server}" for server in static.dns),
            f"DHCP={other}",
            "MulticastDNS=yes",
        ]
        tree.add("/etc/systemd/network/70-hidenseek-card.network", "\n".join(lines) + "\n")
    return tree
