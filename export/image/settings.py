"""What one card is told: checked, and ready to be written in any of the forms that systems take."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from wire.errors import ConfigError

# ISO 3166-1 alpha-2, what regulatory domains are called by.
COUNTRIES = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
    "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO "
    "FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE "
    "JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO "
    "MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW "
    "PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM "
    "TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)
PSK = re.compile(r"[0-9a-f]{64}")
SSH_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+) [A-Za-z0-9+/]+={0,3}( [^\n\r]*)?"
)


@dataclass(frozen=True, kw_only=True)
class Wifi:
    """A wireless network.

    Attributes:
        ssid: its name.
        psk: 64 hex digits, see `wifi_psk`.
        country: where the board is, ISO 3166: radio rules differ.
        hidden: the network does not say its name.
    """

    ssid: str
    psk: str
    country: str
    hidden: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.ssid.encode()) <= 32 or not self.ssid.isprintable():
            raise ConfigError(f"'{self.ssid:.40}' is no network's name: 1 to 32 bytes are expected", where="wifi.ssid")
        if not PSK.fullmatch(self.psk):
            raise ConfigError("64 hex digits are expected", where="wifi.psk", hint="Or give the password instead")
        check_country(self.country)


@dataclass(frozen=True, kw_only=True)
class StaticAddress:
    """An address that is not asked for: with its prefix length, the router, and name servers."""

    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    gateway: ipaddress.IPv4Address | ipaddress.IPv6Address
    dns: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]

    def __post_init__(self) -> None:
        if self.gateway not in self.address.network or self.gateway == self.address.ip:
            raise ConfigError(
                f"the router {self.gateway} is not another address of {self.address.network}", where="gateway"
            )


@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """One card's settings.

    Attributes:
        hostname: the machine's name.
        user: who may log in, with the keys below and no password.
        ssh_keys: lines as in authorized_keys.
        locale: such as de_DE.UTF-8.
        timezone: such as Europe/Berlin.
        wifi: None for cable only.
        static: None for DHCP.
        gpu_mem_mb: memory that a Raspberry Pi's firmware keeps; None leaves it as it is.
        swap: the system's own, which wears cards out; none; or one in compressed memory.
        overclock: "off" takes out of config.txt what makes a Raspberry Pi faster than it is sold.
        arm_freq_mhz: the most that a Raspberry Pi's cores are clocked with; None leaves it as it is.
        temp_limit_c: where a Raspberry Pi begins to slow down, degrees Celsius; None leaves it as it is.
        power_saving: a Raspberry Pi's Bluetooth, sound and lights off, its Wi-Fi asleep between packets.
    """

    hostname: str
    user: str = "pi"
    ssh_keys: tuple[str, ...] = ()
    locale: str = "C.UTF-8"
    timezone: str = "UTC"
    wifi: Wifi | None = None
    static: StaticAddress | None = None
    gpu_mem_mb: int | None = None
    swap: Literal["keep", "off", "zram"] = "keep"
    overclock: Literal["keep", "off"] = "keep"
    arm_freq_mhz: int | None = None
    temp_limit_c: int | None = None
    power_saving: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", self.hostname):
            raise ConfigError(
                f"'{self.hostname}' is no host name: small letters, digits and '-' inside are expected",
                where="hostname",
            )
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", self.user) or self.user == "root":
            raise ConfigError(f"'{self.user}' cannot be the name of a user with few rights", where="user")
        for key in self.ssh_keys:
            if not SSH_KEY.fullmatch(key):
                raise ConfigError(
                    f"'{key[:40]}' is no public SSH key", where="ssh_key", hint="It is the line in ~/.ssh/id_*.pub"
                )
        if not re.fullmatch(r"[A-Za-z_]+(\.[A-Za-z0-9-]+)?(@[a-z]+)?", self.locale):
            raise ConfigError(f"'{self.locale}' is no locale", where="locale", hint="For example de_DE.UTF-8")
        check_timezone(self.timezone)


def check_country(country: str) -> None:
    """Raises ConfigError if there is no such country."""
    if country not in COUNTRIES.split():
        near = ". Two capital letters are expected" if len(country) != 2 or not country.isupper() else ""
        raise ConfigError(
            f"'{country}' is no country of ISO 3166{near}",
            where="wifi.country",
            hint="For example DE, GB (not UK) or US; radio stays off without the right one",
        )


def check_timezone(timezone: str) -> None:
    """Raises ConfigError if there is no such time zone."""
    import zoneinfo

    from wire.errors import did_you_mean

    known = zoneinfo.available_timezones()
    if known and timezone not in known:
        raise ConfigError(
            f"no time zone is called '{timezone}'", where="timezone", hint=did_you_mean(timezone, sorted(known))[:200]
        )


def wifi_psk(ssid: str, password: str) -> str:
    """The key that a WPA2 network derives from its password, 64 hex digits; those themselves are left as they are.

    Raises:
        ConfigError: if no network can have this password.

    Source: IEEE 802.11-2020, J.4.1: PBKDF2 with HMAC-SHA1, the SSID as salt, 4096 iterations, 256 bits.
    """
    if PSK.fullmatch(password.lower()):
        return password.lower()
    if not 8 <= len(password) <= 63 or not password.isascii() or not password.isprintable():
        raise ConfigError("a Wi-Fi password has 8 to 63 printable ASCII characters", where="wifi.password")
    return hashlib.pbkdf2_hmac("sha1", password.encode(), ssid.encode(), 4096, 32).hex()
