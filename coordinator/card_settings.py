"""`flash:` in devices.yaml: what a card is told, for all devices and for each; checked as the rest of the file is."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from coordinator.yaml_file import Strict
from wire.errors import ConfigError

if TYPE_CHECKING:
    from export.image.settings import CardSettings, StaticAddress, Wifi

WIFI_VARIABLE = "HIDENSEEK_WIFI_PASSWORD"
Word = Annotated[str, Field(min_length=1)]


class WifiSettings(Strict):
    """A wireless network."""

    ssid: Word
    country: Annotated[str, Field(description="two letters, ISO 3166: radio rules differ")]
    psk: str | None = Field(default=None, description="64 hex digits, as wpa_passphrase prints them")
    password: str | None = Field(default=None, description=f"without it and psk: ${WIFI_VARIABLE}")
    hidden: bool = False


class FlashSettings(Strict):
    """What `hidenseek flash` writes; a device's own settings count before those of all."""

    hostname: str | None = Field(default=None, description="the device's id if not given")
    user: str = "pi"
    ssh_key: str | list[str] | None = Field(default=None, description="a public key, or a file with some")
    wifi: WifiSettings | None = None
    locale: str = "C.UTF-8"
    timezone: str = "UTC"
    address: str | None = Field(default=None, description="with its prefix, such as 192.168.1.21/24; DHCP if not given")
    gateway: str | None = None
    dns: list[str] = Field(default=[], description="name servers")
    swap: Literal["keep", "off", "zram"] = Field(
        default="off", description="off: it wears cards out; zram: in compressed memory"
    )
    gpu_mem_mb: Annotated[int, Field(ge=16, le=512)] | None = Field(
        default=None, description="of a Raspberry Pi, for its firmware; 16 for boards without a screen"
    )
    overclock: Literal["keep", "off"] = Field(
        default="off", description="off: what makes a Raspberry Pi faster than it is sold is taken out of config.txt"
    )
    arm_freq_mhz: Annotated[int, Field(ge=600, le=3000)] | None = Field(
        default=None, description="of a Raspberry Pi: the most that its cores are clocked with"
    )
    temp_limit_c: Annotated[int, Field(ge=50, le=85)] | None = Field(
        default=None, description="of a Raspberry Pi: where it begins to slow down"
    )
    power_saving: bool = Field(
        default=False, description="of a Raspberry Pi: Bluetooth, sound, activity light off, Wi-Fi sleeps in between"
    )
    memory_mb: Annotated[int, Field(ge=48)] | None = Field(
        default=None, description="the most that the program may take; by half more than the budget's peak_mb, or 256"
    )
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    broker: str | None = Field(default=None, description="mqtt[s]://HOST[:PORT]; that of --deploy if not given")
    ca: str | None = Field(default=None, description="file with its certificate authority; that of --deploy")
    trust: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9+/]{43}=$", description="the federation's key; of the first met if not given"
    )
    data: str | None = Field(default=None, description="a .npz file or folder with recordings to put on the card")

    def over(self, common: FlashSettings) -> FlashSettings:
        """These where they are given, else those of all."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return common.model_copy(update=given)

    def card(self, device: str, folder: Path) -> CardSettings:
        """As the image takes them.

        Args:
            device: its id.
            folder: what paths are relative to.

        Raises:
            ConfigError: if one is out of range; `where` is its name.
        """
        from export.image.settings import CardSettings

        return CardSettings(
            hostname=self.hostname or device.lower().replace("_", "-"),
            user=self.user,
            ssh_keys=self._ssh_keys(folder),
            locale=self.locale,
            timezone=self.timezone,
            wifi=self._wifi(),
            static=self._static(),
            gpu_mem_mb=self.gpu_mem_mb,
            swap=self.swap,
            overclock=self.overclock,
            arm_freq_mhz=self.arm_freq_mhz,
            temp_limit_c=self.temp_limit_c,
            power_saving=self.power_saving,
        )

    def recordings(self, folder: Path) -> dict[str, Path]:
        """Files to put on the card, by the names they get there.

        Raises:
            ConfigError: if there are none where they should be.
        """
        if self.data is None:
            return {}
        path = folder / Path(self.data).expanduser()
        found = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not found or not all(one.is_file() and one.suffix == ".npz" for one in found):
            raise ConfigError(f"no .npz file at {path}", where="data")
        return {one.name: one for one in found}

    def _ssh_keys(self, folder: Path) -> tuple[str, ...]:
        given = [self.ssh_key] if isinstance(self.ssh_key, str) else self.ssh_key or []
        keys: list[str] = []
        for one in given:
            if " " in one.strip():
                keys.append(one.strip())
                continue
            try:
                text = (folder / Path(one).expanduser()).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"neither a public key nor a readable file with one ({error})", where="ssh_key"
                ) from error
            if "PRIVATE KEY" in text:
                raise ConfigError(f"{one} is a private key", where="ssh_key", hint=f"Name {one}.pub")
            keys += [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return tuple(keys)

    def _wifi(self) -> Wifi | None:
        from export.image.settings import Wifi, check_country, wifi_psk

        if self.wifi is None:
            return None
        check_country(self.wifi.country)
        secret = self.wifi.psk or self.wifi.password or os.environ.get(WIFI_VARIABLE)
        if not secret:
            raise ConfigError(
                f"no password for '{self.wifi.ssid}'", where="wifi.password", hint=f"Put it into ${WIFI_VARIABLE}"
            )
        psk = wifi_psk(self.wifi.ssid, secret)
        return Wifi(ssid=self.wifi.ssid, psk=psk, country=self.wifi.country, hidden=self.wifi.hidden)

    def _static(self) -> StaticAddress | None:
        from export.image.settings import StaticAddress

        if self.address is None:
            if self.gateway or self.dns:
                raise ConfigError("there is no address to it", where="gateway" if self.gateway else "dns")
            return None
        where = "address"
        try:
            if "/" not in self.address:
                raise ValueError(f"'{self.address}' has no prefix length, such as /24")
            address = ipaddress.ip_interface(self.address)
            where = "gateway"
            if self.gateway is None:
                raise ValueError("a static address needs one")
            gateway = ipaddress.ip_address(self.gateway)
            where = "dns"
            return StaticAddress(
                address=address, gateway=gateway, dns=tuple(ipaddress.ip_address(server) for server in self.dns)
            )
        except ValueError as error:
            raise ConfigError(str(error), where=where, hint="For example 192.168.1.21/24 and 192.168.1.1") from None
