"""Passwords of a deployment's accounts, and as brokers want to have them: hashed."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from coordinator.brokers.process import write_private
from wire.errors import StateError

FILE = "secrets/passwords.json"  # in the deployment's folder
HASHES = "secrets/hashes.json"
PASSWORD_BYTES = 18
# Passwords here are random, 144 bits: stretching them adds nothing, and a fleet that comes back after a power cut
# would wait for it (bcrypt's usual cost of 10 is 50 ms a device, of the broker's time).
MOSQUITTO_ITERATIONS = 101  # mosquitto_passwd's own
BCRYPT_COST = 4  # the least there is
_STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def load(folder: Path) -> dict[str, str]:
    """Passwords by user; none if there is no file yet.

    Raises:
        StateError: if it is damaged.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StateError(f"damaged ({error})", where=str(path), hint="Restore it from a backup") from error
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise StateError("not a mapping of users to passwords", where=str(path), hint="Restore it from a backup")
    return found


def keep(folder: Path, users: Iterable[str], *, renew: Iterable[str] = ()) -> dict[str, str]:
    """See that these users have passwords, and nobody else; those that there are stay as they are.

    Args:
        folder: the deployment's.
        users: who shall have one.
        renew: who shall have another.

    Raises:
        StateError: if the file is damaged or cannot be written.
    """
    known, again = load(folder), set(renew)
    wanted = {
        user: known[user] if user in known and user not in again else secrets.token_urlsafe(PASSWORD_BYTES)
        for user in users
    }
    if wanted != known:
        write_private(folder / FILE, json.dumps(wanted, indent=1) + "\n")
    return wanted


def rename(folder: Path, names: Mapping[str, str]) -> None:
    """Call users otherwise, by their old names; each keeps its password. Those that there are not are left out.

    Raises:
        StateError: if the file is damaged or cannot be written.
    """
    known = load(folder)
    wanted = {names.get(user, user): password for user, password in known.items()}
    if wanted != known:
        write_private(folder / FILE, json.dumps(wanted, indent=1) + "\n")


def mosquitto_hash(user: str, password: str) -> str:
    """A password as mosquitto 2's password file has it: PBKDF2 with SHA-512.

    Source: mosquitto_passwd, hash type $7$.
    """
    salt = _salt(user, password)[:12]
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, MOSQUITTO_ITERATIONS)
    return f"$7${MOSQUITTO_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def nats_hashes(folder: Path, passwords: Mapping[str, str]) -> dict[str, str]:
    """Passwords as nats-server's configuration has them: bcrypt, by user.

    A fleet's take seconds, so they are kept beside the passwords, each with the digest of what it is of.

    Raises:
        StateError: if they cannot be kept.
    """
    path = folder / HASHES
    try:
        known: dict[str, str] = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    digests = {user: hashlib.sha256(f"{user}\0{one}".encode()).hexdigest() for user, one in passwords.items()}
    found = {digest: known.get(digest) or _bcrypt(user, passwords[user]) for user, digest in digests.items()}
    if found.keys() - known.keys():
        write_private(path, json.dumps(found) + "\n")
    return {user: found[digest] for user, digest in digests.items()}


def _bcrypt(user: str, password: str) -> str:
    import bcrypt

    salt = base64.b64encode(_salt(user, password)).decode().rstrip("=")
    salt = salt.translate(str.maketrans(_STANDARD, _BCRYPT))
    return bcrypt.hashpw(password.encode(), f"$2a${BCRYPT_COST:02}${salt}".encode()).decode()


def _salt(user: str, password: str) -> bytes:
    """16 bytes that are the same every time, so that files are only written anew when they say something new."""
    return hashlib.sha256(f"salt\0{user}\0{password}".encode()).digest()[:16]
