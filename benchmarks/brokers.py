"""What `hidenseek broker check` finds of three brokers, each started here with what docs/brokers.md says of it.

    python -m benchmarks.brokers -o benchmarks/results/broker-check.json     # and prints the table of docs/brokers.md

mosquitto and NATS are those of `hidenseek broker init`, with accounts for a worker and Home Assistant, and are killed
too; RabbitMQ, which hidenseek does not run, is checked by its URL. Needs all three servers installed.
"""

from __future__ import annotations

import argparse
import base64
import datetime as dt
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, describe
from coordinator import cli
from coordinator.brokers import access, certificates, device_certificates
from coordinator.brokers.access import COORDINATOR, HOME_ASSISTANT
from coordinator.brokers.process import mosquitto_binary, nats_binary
from coordinator.monitoring.discovery import DEFAULT_PREFIX
from tests.integration.deployed import deployed, free_ports
from tests.integration.fleet import wait_until

NAME, WORKER, DEVICES = "t", "worker-1", ("pi-1", "pi-2")
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
COMMAND = (
    "hidenseek broker check --deploy deploy --restart; RabbitMQ: hidenseek broker check URL --accounts accounts.json "
    "--ws URL --worker worker-1 --home-assistant"
)
SHORTER = {  # of what is found, in the table
    r"TLS: tlsv1 alert protocol version": "TLS: protocol version",
    r" in certificate chain$": "",
    r", for localhost, 127\.0\.0\.1.*$": ", for 127.0.0.1, localhost",
}


def version(*command: str | Path) -> str:
    """Of a server, as it says it."""
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+\.\d+", said)
    if found is None:
        raise SystemExit(f"{command[0]} does not say its version: {said!r}")
    return found[0]


def check(*options: str) -> list[dict[str, str]]:
    """The rows of one check."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        cli.main(["broker", "check", *options, "--json", str(out)])
        rows: list[dict[str, str]] = json.loads(out.read_text())["rows"]
        return rows


def check_ours(kind: str) -> list[dict[str, str]]:
    """Of a broker as `hidenseek broker init` sets it up."""
    with (
        tempfile.TemporaryDirectory() as folder,
        deployed(Path(folder), kind, "--home-assistant", "--workers", "1") as made,
    ):
        return check("--deploy", str(made.folder), "--restart")


def check_rabbitmq() -> list[dict[str, str]]:
    """Of RabbitMQ with the settings of docs/brokers.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        passwords = {user: secrets.token_hex(8) for user in (COORDINATOR, WORKER, HOME_ASSISTANT, *DEVICES)}
        (folder / "accounts.json").write_text(json.dumps(passwords))
        with rabbitmq(folder, passwords) as (port, ws_port):
            options = ["--ca", str(folder / "ca.crt"), "--federation", NAME]
            options += ["--accounts", str(folder / "accounts.json"), "--worker", WORKER, "--home-assistant"]
            return check(f"mqtts://localhost:{port}", *options, "--ws", f"wss://localhost:{ws_port}/ws")


@contextmanager
def rabbitmq(folder: Path, passwords: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A RabbitMQ node of its own, with its files in `folder`: its ports for MQTT and websockets, both with TLS.

    Whoever shows a certificate of the folder's authority for devices at the first is who that says.
    """
    certificates.make_authority(folder, NAME)
    certificates.issue(folder, ["localhost", "127.0.0.1"], folder)
    first, second = free_ports(2)
    (folder / "definitions.json").write_text(json.dumps(definitions(passwords)))
    (folder / "plugins").write_text("[rabbitmq_mqtt, rabbitmq_web_mqtt].\n")
    device_certificates.make_authority(folder, NAME)
    tls = {"cacertfile": "devices.crt", "certfile": "server.crt", "keyfile": "server.key"}
    settings = [
        "listeners.tcp = none",
        f"load_definitions = {folder}/definitions.json",
        *(f"ssl_options.{key} = {folder}/{file}" for key, file in tls.items()),
        *(f"web_mqtt.ssl.{key} = {folder}/{file}" for key, file in tls.items()),
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = false",
        "mqtt.ssl_cert_login = true",
        "ssl_cert_login_from = common_name",
        "ssl_options.versions.1 = tlsv1.3",
        "ssl_options.versions.2 = tlsv1.2",
        "mqtt.listeners.tcp = none",
        f"mqtt.listeners.ssl.default = {first}",
        "mqtt.allow_anonymous = false",
        "mqtt.prefetch = 100",
        "mqtt.subscription_ttl = 1209600000",
        "web_mqtt.tcp.ip = 127.0.0.1",
        f"web_mqtt.tcp.port = {first + 1}",
        f"web_mqtt.ssl.port = {first + 2}",
    ]
    (folder / "rabbitmq.conf").write_text("\n".join(settings) + "\n")
    environment = os.environ | {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(second),
        "RABBITMQ_NODENAME": "check@localhost",
        "RABBITMQ_DIST_PORT": str(second + 1),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }
    log = (folder / "server.log").open("wb")
    server = subprocess.Popen([RABBITMQ], env=environment, stdout=log, stderr=log, start_new_session=True)

    def up() -> bool:
        if server.poll() is not None:
            raise SystemExit(f"RabbitMQ has ended: {(folder / 'server.log').read_text()[-2000:]}")
        with socket.socket() as probe, socket.socket() as web:
            return not probe.connect_ex(("127.0.0.1", first)) and not web.connect_ex(("127.0.0.1", first + 2))

    try:
        wait_until(up, 120, "RabbitMQ takes connections")
        yield first, first + 2
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
        subprocess.run(["epmd", "-kill"], env=environment, capture_output=True, check=False)
        log.close()


def definitions(passwords: dict[str, str]) -> dict[str, Any]:
    """Accounts and their rights as RabbitMQ reads them at its start: MQTT's / is its dot."""
    rights = {
        COORDINATOR: access.coordinator(NAME, DEFAULT_PREFIX),
        HOME_ASSISTANT: access.home_assistant(NAME, DEFAULT_PREFIX),
        WORKER: access.worker(NAME),
        **{device: access.device(NAME, device) for device in DEVICES},
    }
    common = {"vhost": "/"}
    queues = r"^(mqtt-subscription-.*|amq\.topic)$"  # what MQTT sessions are made of
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            {
                "name": user,
                "password_hash": _hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for user, password in passwords.items()
        ],
        "permissions": [
            {"user": user, **common, "configure": queues, "write": queues, "read": queues} for user in passwords
        ],
        "topic_permissions": [
            {"user": user, **common, "exchange": "amq.topic", "write": _pattern(may.write), "read": _pattern(may.read)}
            for user, may in rights.items()
        ],
    }


def _pattern(filters: Sequence[str]) -> str:
    """MQTT filters, x or x/#, as an expression for routing keys."""
    keys = [re.escape(one.removesuffix("/#").replace("/", ".")) for one in filters]
    return (
        "^("
        + "|".join(key + (r"(\..*)?" if one.endswith("/#") else "") for key, one in zip(keys, filters, strict=True))
        + ")$"
    )


def _hash(password: str) -> str:
    """Salted, as RabbitMQ's guide on passwords has it."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def table(tables: dict[str, list[dict[str, str]]]) -> str:
    """Markdown: what was tried, what should be, and what each broker did; without what is for information only."""
    kept = {
        name: {(row["side"], _plain(row["what"])): row for row in rows if row["verdict"] != "note" or row["expected"]}
        for name, rows in tables.items()
    }
    lines = [f"| tried | expected | {' | '.join(kept)} |", "|---" * (2 + len(kept)) + "|"]
    for key in dict.fromkeys(key for rows in kept.values() for key in rows):
        found = [rows.get(key) for rows in kept.values()]
        expected = next(row["expected"] for row in found if row)
        if expected:
            lines.append(f"| {key[0]}: {key[1]} | {expected} | {' | '.join(map(_cell, found))} |")
    return "\n".join(lines) + "\n"


def _plain(what: str) -> str:
    return re.sub(r" \(\$SYS.*\)$", "", what)  # the broker may say "granted", and does not serve it


def _cell(row: dict[str, str] | None) -> str:
    if row is None:
        return "not tried"
    found = row["found"]
    for pattern, shorter in SHORTER.items():
        found = re.sub(pattern, shorter, found.rstrip(")")) + (")" if found.endswith(")") else "")
    return {"FAIL": f"**{found}**", "note": f"{found} (note)"}.get(row["verdict"], found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.brokers", description="broker check of three brokers.")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args(arguments)
    tables = {
        f"mosquitto {version(mosquitto_binary(), '-h')}": check_ours("mosquitto"),
        f"nats-server {version(nats_binary(), '--version')}": check_ours("nats"),
        f"RabbitMQ {version('rabbitmqctl', 'version')}": check_rabbitmq(),
    }
    print(table(tables))
    if options.output:
        today = dt.datetime.now(dt.UTC).date().isoformat()
        result = {"date": today, "commit": commit(), "machine": describe(), "command": COMMAND, "tables": tables}
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
