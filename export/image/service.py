"""The service that a card starts: a systemd unit of few rights, and what its program is told."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from export.image.tree import Tree

HOME = "/opt/hidenseek"
CARD = "/etc/hidenseek/card.json"
CA = "/etc/hidenseek/ca.crt"
STATE = "/var/lib/private/hidenseek"  # systemd's StateDirectory of a DynamicUser
PYCACHE = "/var/cache/private/hidenseek/pycache"  # below its CacheDirectory
DATA = "/srv/hidenseek/data"
UNIT = "/etc/systemd/system/hidenseek.service"
# Without a clock that runs on a board starts at the newer of these files' times, and no certificate is to be newer.
CLOCKS = ("/usr/lib/clock-epoch", "/var/lib/systemd/timesync/clock")
WATCHDOG_S = 300

UNIT_TEXT = """\
# Written by hidenseek flash. Change it with: systemctl edit hidenseek
[Unit]
Description=hidenseek: trains signs of a shared network on this device's data
Documentation=https://github.com/hidenseek/hidenseek/blob/main/docs/flash.md
# Not network-online.target: loading takes as long as the network does, and the program tries again twice a second.
After=network.target time-sync.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={home}/current/bin/hidenseek-edge card {card}
Restart=always
RestartSec=5
# Longer and longer, from systemd 254 on; older ones try every 5 s.
RestartSteps=8
RestartMaxDelaySec=300
# Refused for good: another key, a revoked device, a card used twice. Trying again would not help.
RestartPreventExitStatus={for_good}
WatchdogSec={watchdog_s}
TimeoutStartSec=300
# numpy's threads are not used, and each has a buffer of its own.
Environment=OPENBLAS_NUM_THREADS=1
# Its second thread hardly allocates: one heap for both is 0.5 MB less.
Environment=MALLOC_ARENA_MAX=1
TimeoutStopSec=30
# Below all that the machine is for.
Nice=10
CPUWeight=20
IOWeight=20
MemoryHigh={high_mb}M
MemoryMax={max_mb}M
OOMPolicy=stop
TasksMax=64

DynamicUser=yes
User=hidenseek
StateDirectory=hidenseek
StateDirectoryMode=0700
# An updated client's kernels lie there, and systemd 257 and newer let nothing of a DynamicUser's state be run.
ExecPaths=-{state}
CacheDirectory=hidenseek
ReadOnlyPaths=-{data}
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target
"""
FOR_GOOD = (17, 18)  # wire.errors.JoinRefused, DuplicateDevice


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the device's program is told.

    Attributes:
        device: its id.
        federation: which it joins.
        broker: address, mqtt[s]://HOST[:PORT]; several with commas.
        certificates: address where it shows the certificate that it gets for its token; "" if it gets a password.
        ca: certificates of whom it believes to be the broker, PEM; None for a broker without TLS, or a public one.
        trust: the federation's public key, base64; "" for the first it meets.
        profile: kind of hardware.
        threads: cores to train with.
        memory_mb: the most that it may take; the kernel ends it above.
        peak_mb: its budget: an updated client that needs more is taken back; 0 for none.
    """

    device: str
    federation: str
    broker: str
    certificates: str = ""
    ca: bytes | None = None
    trust: str = ""
    profile: str = ""
    threads: int = 1
    memory_mb: int = 256
    peak_mb: float = 0


def files(service: Service) -> Tree:
    """Unit and settings, nothing of them secret."""
    tree = Tree()
    card = {
        "device": service.device,
        "federation": service.federation,
        "broker": service.broker,
        "certificates": service.certificates,
        "ca": CA if service.ca else "",
        "trust": service.trust,
        "profile": service.profile,
        "threads": service.threads,
        "peak_mb": service.peak_mb,
        "data": DATA,
    }
    tree.add(CARD, json.dumps(card, indent=1) + "\n")
    if service.ca:
        tree.add(CA, service.ca)
    unit = UNIT_TEXT.format(
        home=HOME,
        card=CARD,
        data=DATA,
        state=STATE,
        for_good=" ".join(map(str, FOR_GOOD)),
        watchdog_s=WATCHDOG_S,
        high_mb=max(16, service.memory_mb * 9 // 10),
        max_mb=service.memory_mb,
    )
    tree.add(UNIT, unit)
    tree.links["/etc/systemd/system/multi-user.target.wants/hidenseek.service"] = "../hidenseek.service"
    tree.folders["/srv/hidenseek"] = 0o755
    tree.folders[DATA] = 0o755
    tree.folders["/var/lib/private"] = 0o700
    tree.folders[STATE] = 0o700
    tree.links["/var/lib/hidenseek"] = "private/hidenseek"
    for clock in CLOCKS:
        tree.add(clock, f"written by hidenseek flash at {int(time.time())}\n")
    return tree
