"""`hidenseek broker init`: what it writes, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from coordinator import cli
from coordinator.brokers import accounts, certificates
from coordinator.brokers.process import nats_binary

CONFIGS = {"mosquitto": {"acl", "passwd", "mosquitto.conf"}, "nats": {"accounts.conf", "nats.conf"}}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a devices.yaml of two devices, which is also the working directory."""
    (tmp_path / "devices.yaml").write_text("federation: {name: t}\ndevices: {pi-01: {}, pi-02: {}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # nobody cuts the power of a test
    return tmp_path


def init(*options: str, kind: str = "mosquitto") -> int:
    """Run it."""
    return cli.main(["broker", "init", "--kind", kind, "--hosts", "hub.example.org,192.168.1.10", *options])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_what_is_secret_is_its_owners_alone(home: Path, kind: str) -> None:
    """Private keys, passwords, hashes and settings with passwords in them are 0600; the folder of secrets 0700."""
    assert init(kind=kind) == 0
    private = {"ca.key", "server.key", "passwords.json", *CONFIGS[kind]}
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (home / "deploy").rglob("*") if path.name in private}
    assert set(found.values()) == {0o600}
    assert {path.name for path in found} == private
    assert stat.S_IMODE((home / "deploy" / "secrets").stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_again_it_changes_nothing(home: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command twice: every file is the same to the byte."""
    assert init(kind=kind) == 0
    before = contents(home / "deploy")
    assert init(kind=kind) == 0
    assert contents(home / "deploy") == before
    assert "nothing has changed" in capsys.readouterr().out


def test_a_new_device_leaves_the_rest_as_it_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets an account; others keep their passwords, the server its key; one that is gone is told of and stays."""
    assert init() == 0
    before = accounts.load(home / "deploy")
    key = (home / "deploy/nodes/broker/config/server.key").read_bytes()
    (home / "devices.yaml").write_text("federation: {name: t}\ndevices: {pi-02: {}, pi-03: {}}\n")
    assert init() == 0
    after = accounts.load(home / "deploy")
    assert after.keys() - before.keys() == {"pi-03"}
    assert before.items() <= after.items()
    assert key == (home / "deploy/nodes/broker/config/server.key").read_bytes()
    assert "hidenseek broker remove-device pi-01" in capsys.readouterr().out


def test_what_a_person_has_edited_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings: the new text goes beside them. Accounts: they are written, and the edited file goes beside them."""
    assert init() == 0
    config = home / "deploy/nodes/broker/config"
    with (config / "mosquitto.conf").open("a") as file:
        file.write("# mine\n")
    with (config / "acl").open("a") as file:
        file.write("# mine\n")
    assert init("--fleet", "5000") == 0
    said = capsys.readouterr().out
    assert "mosquitto.conf: you have edited it" in said
    assert (config / "mosquitto.conf").read_text().endswith("# mine\n")
    assert "max_queued_messages 50000" in (config / "mosquitto.conf.new").read_text()
    assert (config / "acl.edited").read_text().endswith("# mine\n")
    assert "# mine" not in (config / "acl").read_text()


@pytest.mark.slow
def test_an_interrupt_leaves_what_the_next_run_completes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after any number of files, it ends with one authority, whose certificate the server has."""
    replace = Path.replace
    for allowed in (*range(16), *range(16, 90, 5)):  # each of the first files, then some
        shutil.rmtree("deploy", ignore_errors=True)
        left = allowed

        def cut(source: Path, target: Path) -> Path:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", cut)
            code = init()
        assert code in (0, 130)
        assert init() == 0
        assert not list(home.glob("deploy/**/*.edited"))
        assert not list(home.glob("deploy/**/*.new"))
        verify(home / "deploy/ca.crt", home / "deploy/nodes/broker/config/server.crt")
        if code == 0:
            break
    else:
        raise AssertionError("never complete")
    assert allowed > 10


def verify(authority: Path, certificate: Path) -> None:
    """As OpenSSL does, strictly."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        str(authority),
        str(certificate),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_certificates_are_for_the_hosts(home: Path) -> None:
    """Names and addresses are in it, it is signed by the authority, and the key is its own."""
    assert init() == 0
    config = home / "deploy/nodes/broker/config"
    verify(home / "deploy/ca.crt", config / "server.crt")
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(config / "server.crt", config / "server.key")
    _, names = certificates.from_der(ssl.PEM_cert_to_DER_cert((config / "server.crt").read_text()))
    assert names == ["127.0.0.1", "192.168.1.10", "hub.example.org", "localhost"]


@pytest.mark.parametrize("more", [(), ("--nodes", "3")])
def test_nats_takes_its_settings(home: Path, more: tuple[str, ...]) -> None:
    """nats-server -t, of every node; it may also say that a setting is none."""
    hosts = "a.example.org,b.example.org,c.example.org" if more else "a.example.org"
    assert cli.main(["broker", "init", "--kind", "nats", "--hosts", hosts, "--workers", "2", *more]) == 0
    folders = [*(home / "deploy/nodes").iterdir()]
    assert len(folders) == (3 if more else 1)
    for folder in [*folders, home / "deploy/kubernetes"]:
        done = subprocess.run(
            [nats_binary(), "-t", "-c", "config/nats.conf"],
            cwd=folder, env=os.environ | {"NODE": "n"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "is valid" in done.stderr, done.stderr
    text = (folders[0] / "config/nats.conf").read_text()
    assert ("stream_replicas: 3" in text) == bool(more)


def documents(path: Path) -> list[Any]:
    """Of a YAML file."""
    return [one for one in YAML(typ="safe").load_all(path.read_text()) if one]


@pytest.mark.parametrize(
    ("kind", "more"), [("mosquitto", ()), ("nats", ("--nodes", "3")), ("mosquitto", ("--sites", "A,B"))]
)
def test_manifests_fit_together(home: Path, kind: str, more: tuple[str, ...]) -> None:
    """Kubernetes: what is mounted is made, ports have names that are there. Compose: every node with its own files."""
    assert init(*more[:0], *more, *(["--hosts", "a,b,c"] if "--nodes" in more else []), kind=kind) == 0
    deploy = home / "deploy"
    (custom,) = documents(deploy / "kubernetes/kustomization.yaml")
    (secret,) = custom["secretGenerator"]
    for name in secret["files"]:
        assert (deploy / "kubernetes" / name).is_file()
    assert {f"config/{name}" for name in CONFIGS[kind]} < set(secret["files"])
    things = {thing["kind"]: thing for thing in documents(deploy / "kubernetes/broker.yaml")}
    pod = things["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    claims = things["StatefulSet"]["spec"]["volumeClaimTemplates"]
    volumes = {one["name"] for one in pod["volumes"]} | {one["metadata"]["name"] for one in claims}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert pod["volumes"][0]["secret"]["secretName"] == secret["name"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["readinessProbe"]["tcpSocket"]["port"] in ports
    text = (deploy / f"kubernetes/config/{kind}.conf").read_text()
    assert all(str(port) in text for port in ports.values())
    (compose,) = documents(deploy / "compose.yaml")
    nodes = {path.name for path in (deploy / "nodes").iterdir()}
    assert {service["volumes"][0].split("/")[2] for service in compose["services"].values()} == nodes


def test_monitoring_fits_together(home: Path) -> None:
    """What the compose file mounts is there; Prometheus takes its settings, and finds the alerts."""
    assert init() == 0
    folder = home / "deploy/monitoring"
    (compose,) = documents(folder / "compose.yaml")
    mounts = [mount.split(":")[0] for service in compose["services"].values() for mount in service["volumes"]]
    for mount in mounts:
        assert mount in compose["volumes"] if "/" not in mount else (folder / mount).is_file(), mount
    (datasource,) = documents(folder / "grafana/datasource.yaml")
    assert datasource["datasources"][0]["url"] == "http://127.0.0.1:9090"
    if shutil.which("promtool"):
        command = ["promtool", "check", "config", str(folder / "prometheus.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "13 rules found" in done.stdout


def test_home_assistant_gets_an_account_of_its_own(home: Path) -> None:
    """If asked for: it reads what it is shown, and the coordinator may show it; the next init keeps it."""
    assert init() == 0
    assert "home-assistant" not in accounts.load(home / "deploy")
    assert init("--home-assistant", "ha") == 0
    assert init() == 0
    assert "home-assistant" in accounts.load(home / "deploy")
    users = (home / "deploy/nodes/broker/config/acl").read_text().split("user ")
    (ours,) = [text for text in users if text.startswith("home-assistant\n")]
    assert {"topic read ha/#", "topic read hns/t/home/#", "topic write ha/status"} == set(
        ours.split("\n\n")[0].splitlines()[1:]
    )
    (hub,) = [text for text in users if text.startswith("coordinator\n")]
    assert "topic write ha/device/hns-t/#" in hub
    assert "topic write hns/t/home/#" in hub


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_its_unit(home: Path) -> None:
    """systemd-analyze verify has nothing to say but, here, that the program is missing; and little is exposed."""
    assert init() == 0
    unit = str(home / "deploy/systemd/hidenseek-broker.service")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "hidenseek-broker" in line and "is not executable" not in line]
    assert not said
    shell = subprocess.run(["sh", "-n", str(home / "deploy/systemd/install.sh")], check=False)
    assert shell.returncode == 0


def test_sites_have_their_own_devices(home: Path) -> None:
    """A site's broker knows its devices and no others; the hub lets its bridge speak for these."""
    (home / "devices.yaml").write_text("devices: {pi-01: {site: A}, pi-02: {site: B}, pi-03: {}}\n")
    assert init("--sites", "A=10.1.0.2+a.local,B") == 0
    nodes = home / "deploy/nodes"

    def users(node: str) -> set[str]:
        lines = (nodes / node / "config/passwd").read_text().splitlines()
        return {line.partition(":")[0] for line in lines} - {"check-1", "check-2"}

    assert users("hub") == {"coordinator", "site-A", "site-B", "pi-03"}
    assert users("site-A") == {"pi-01"}
    assert users("site-B") == {"pi-02"}
    rights = (nodes / "hub/config/acl").read_text().split("user site-A\n")[1].split("\n\n")[0]
    assert "topic write hns/default/up/pi-01/#" in rights
    assert "pi-02" not in rights
    assert "pi-03" not in rights


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--kind", "mosquitto"], "--hosts: missing"),
        (["--hosts", "a"], "--kind: missing"),
        (["--kind", "mosquitto", "--hosts", "a", "--nodes", "3"], "--nodes: mosquitto has no clusters"),
        (["--kind", "nats", "--hosts", "a", "--sites", "A"], "--sites: sites are for mosquitto"),
        (["--kind", "nats", "--hosts", "a,b", "--nodes", "2"], "--nodes: 2 nodes stop when one does"),
        (["--kind", "nats", "--hosts", "a,b", "--nodes", "3"], "--hosts: 2 hosts for 3 nodes"),
        (["--kind", "nats", "--hosts", "a", "--port", "99999"], "--port: 99999 found, should be less than"),
        (["--kind", "mosquitto", "--hosts", "a", "--sites", "A/B"], "--sites: 'A/B' found"),
    ],
)
def test_what_does_not_fit_is_refused(
    home: Path, options: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the option, what was found and what to do; and nothing is written."""
    assert cli.main(["broker", "init", *options]) == 10
    assert text in capsys.readouterr().err
    assert not (home / "deploy").exists()


def test_wrong_names_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A deployment that is not there, an account that is none, a device at no site or with the broker's own name."""
    assert cli.main(["broker", "up"]) == 10
    assert "no deployment.json in this folder" in capsys.readouterr().err
    assert init() == 0
    for command, code, text in (
        (["remove-device", "pi-1"], 12, "Did you mean 'pi-0"),
        (["rotate", "pi-1"], 12, "Did you mean 'pi-0"),
        (["rotate"], 10, "nothing to rotate"),
        (["add-device", "pi-01"], 10, "'pi-01' has an account"),
        (["add-device", "coordinator"], 10, "is the broker's own account"),
        (["add-device", "a/b"], 10, "is not 1 to 64 letters"),
        (["add-device", "pi-03", "--site", "A"], 10, "at site 'A', which is none"),
        (["up", "--node", "brocker"], 12, "Did you mean 'broker'?"),
    ):
        assert cli.main(["broker", *command]) == code, command
        assert text in capsys.readouterr().err
    assert init(kind="nats") == 10
    assert "it is a deployment of mosquitto" in capsys.readouterr().err


def test_removed_is_gone_from_every_file(home: Path) -> None:
    """No password, hash or rule of it is left."""
    assert init() == 0
    assert cli.main(["broker", "remove-device", "pi-02"]) == 0
    for name, data in contents(home / "deploy").items():
        assert b"pi-02" not in data, name
    assert "pi-01" in json.loads((home / "deploy/secrets/passwords.json").read_text())


def test_a_backup_of_the_secrets_is_enough(home: Path) -> None:
    """Out of deployment.json, ca.crt and secrets/ the rest is made again: same accounts, same authority."""
    assert init() == 0
    kept = {name: data for name, data in contents(home / "deploy").items() if not name.startswith(("nodes", "kube"))}
    hashes = (home / "deploy/nodes/broker/config/passwd").read_bytes()
    shutil.rmtree(home / "deploy")
    for name in ("deployment.json", "ca.crt", "secrets/ca.key", "secrets/passwords.json"):
        (home / "deploy" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "deploy" / name).write_bytes(kept[name])
    assert cli.main(["broker", "init", "-o", "deploy"]) == 0
    assert (home / "deploy/nodes/broker/config/passwd").read_bytes() == hashes
    verify(home / "deploy/ca.crt", home / "deploy/nodes/broker/config/server.crt")


def test_hashes_are_what_brokers_expect(tmp_path: Path) -> None:
    """PBKDF2 and bcrypt of known passwords; the same every time, another for every user."""
    import bcrypt

    assert re.fullmatch(r"\$7\$101\$[\w+/]{16}\$[\w+/]{86}==", accounts.mosquitto_hash("a", "secret"))
    hashes = accounts.nats_hashes(tmp_path, {"a": "secret", "b": "secret"})
    assert all(bcrypt.checkpw(b"secret", hashed.encode()) for hashed in hashes.values())
    assert hashes["a"] != hashes["b"]
    assert accounts.nats_hashes(tmp_path, {"a": "secret"}) == {"a": hashes["a"]}
    assert accounts.nats_hashes(tmp_path, {"a": "other"})["a"] != hashes["a"]
    assert (tmp_path / accounts.HASHES).stat().st_mode & 0o77 == 0
    assert accounts.mosquitto_hash("a", "secret") != accounts.mosquitto_hash("b", "secret")
