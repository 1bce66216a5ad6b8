"""Settings as cloud-init takes them: user-data, meta-data and network-config, which are JSON (and so YAML)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from export.image.settings import CardSettings


def files(settings: CardSettings, instance_id: str, runcmd: Sequence[Sequence[str]] = ()) -> dict[str, bytes]:
    """The three files by their names.

    Args:
        settings: the card's.
        instance_id: another for every writing of a card: cloud-init acts once for each.
        runcmd: commands at the end of the first boot.
    """
    return {
        "user-data": b"#cloud-config\n" + _json(_user_data(settings, runcmd)),
        "meta-data": _json({"instance-id": instance_id, "local-hostname": settings.hostname}),
        "network-config": _json(network(settings)),
    }


def network(settings: CardSettings) -> dict[str, Any]:
    """Network settings, version 2 (netplan's own).

    A static address is that of the wireless interface if there is one, else of the cable's.
    """
    cable: dict[str, Any] = {"match": {"name": "e*"}, "dhcp4": True, "optional": True}
    found: dict[str, Any] = {"version": 2, "ethernets": {"cable": cable}}
    main = cable
    if wifi := settings.wifi:
        point: dict[str, Any] = {"password": wifi.psk}
        if wifi.hidden:
            point["hidden"] = True
        main = {"dhcp4": True, "optional": True, "access-points": {wifi.ssid: point}}
        main["regulatory-domain"] = wifi.country
        found["wifis"] = {"wlan0": main}
    if static := settings.static:
        main["dhcp4"] = False
        main["addresses"] = [str(static.address)]
        main["routes"] = [{"to": "default", "via": str(static.gateway)}]
        main["nameservers"] = {"addresses": [str(server) for server in static.dns]}
    return {"network": found}


def _user_data(settings: CardSettings, runcmd: Sequence[Sequence[str]]) -> dict[str, Any]:
    user: dict[str, Any] = {
        "name": settings.user,
        "groups": "users,adm,dialout,audio,video,plugdev,sudo",
        "shell": "/bin/bash",
        "lock_passwd": True,
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
    }
    if settings.ssh_keys:
        user["ssh_authorized_keys"] = list(settings.ssh_keys)
    found: dict[str, Any] = {
        "hostname": settings.hostname,
        "manage_etc_hosts": True,
        "users": [user],
        "ssh_pwauth": False,
        "ssh_deletekeys": True,  # an image's own are known to all who have it
        "timezone": settings.timezone,
        "locale": settings.locale,
        "package_update": False,
    }
    if runcmd:
        found["runcmd"] = [list(command) for command in runcmd]
    return found


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
