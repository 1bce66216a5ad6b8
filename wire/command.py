"""What both command lines share: one clear line for every error, stable exit codes, clean interrupts."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from wire.errors import ConfigError, HidenseekError, NotEnoughMemory

if TYPE_CHECKING:
    from wire.broker import Broker

INTERRUPTED = 130
PASSWORD_VARIABLE = "HIDENSEEK_PASSWORD"  # noqa: S105  # the variable's name, not a password


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keep examples as they are written, and show defaults."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, "", [], argparse.SUPPRESS):
            return action.help
        return super()._get_help_string(action)


def run(
    program: str,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Parse, run the chosen command's `run` function, and turn errors into one line and an exit code.

    Args:
        program: name to start error lines with.
        parser: its sub-commands have set a default `run`: (parsed arguments) -> exit code or None.
        argv: arguments without the program's name; the process's own if None.
        before: called when the arguments are right, before the command's function.
    """
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    command: Callable[[argparse.Namespace], int | None] = arguments.run
    try:
        before()
        return command(arguments) or 0
    except HidenseekError as error:
        print(f"{program}: error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except MemoryError as error:  # of what nobody has asked about before
        short = NotEnoughMemory(str(error) or "memory cannot be had", hint="Stop other programs, or raise the limit")
        print(f"{program}: error: {short}", file=sys.stderr)  # noqa: T201
        return short.exit_code
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `hidenseek ... | head` is no error
        return 0


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def log_to_terminal(*, verbose: bool) -> None:
    """Plain lines with the time on standard error."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )


class Nodes(argparse.Action):
    """An address that may be given several times: the nodes of a cluster, kept as one text with commas."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Append it."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, f"{before},{values}" if before else str(values))


def add_broker_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """--broker, --ca, --cert, --cert-key, --password-file and --connect-timeout."""
    group = parser.add_argument_group("broker")
    group.add_argument(
        "--broker",
        metavar="URL",
        required=required,
        action=Nodes,
        help="mqtt[s]://[USER@]HOST[:PORT]; several for the nodes of a cluster, with commas or by repeating it",
    )
    group.add_argument("--ca", type=Path, metavar="FILE", help="certificate authority of an mqtts broker")
    group.add_argument("--cert", type=Path, metavar="FILE", help="our certificate, for a broker that asks for one")
    group.add_argument("--cert-key", type=Path, metavar="FILE", help="its private key (default: in the same file)")
    group.add_argument(
        "--password-file", type=Path, metavar="FILE", help=f"first line is the password (else ${PASSWORD_VARIABLE})"
    )
    group.add_argument(
        "--connect-timeout", type=float, default=15.0, metavar="S", help="give up if nothing answers for S seconds"
    )


def read_password(arguments: argparse.Namespace) -> str | None:
    """The broker password from --password-file or the environment; never from the command line.

    Raises:
        ConfigError: if the file cannot be read.
    """
    if arguments.password_file is None:
        return os.environ.get(PASSWORD_VARIABLE)
    try:
        lines = arguments.password_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"password file cannot be read ({error})", where=str(arguments.password_file)) from error
    if not lines:
        raise ConfigError("password file is empty", where=str(arguments.password_file))
    return str(lines[0])


def read_broker(arguments: argparse.Namespace) -> Broker:
    """The broker that the options of `add_broker_arguments` name.

    Raises:
        ConfigError: if the address is none, or a file cannot be read.
    """
    from wire.broker import parse_url

    return parse_url(
        arguments.broker,
        password=read_password(arguments),
        ca=arguments.ca,
        certificate=arguments.cert,
        certificate_key=arguments.cert_key,
    )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that was asked for, so that an interrupt leaves no half of it.

    Raises:
        ConfigError: if it cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(path)) from error
