"""`hidenseek key`: the federation's public key, for people and apps."""

from __future__ import annotations

import argparse

from coordinator.keys import federation_key, key_path
from wire import command, signing

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek key                              # the public key, to build into an app or to hand to a partner
  hidenseek export har.hns -o out            # signs with it
  hidenseek verify out --trust KEY           # accepts nobody else's

Whoever has the private key can sign in the federation's name: back the file up, and keep it to yourself.
"""


def add_key(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek key`."""
    parser = subparsers.add_parser(
        "key",
        help="show the federation's public key, which signs what is exported",
        description="Show the federation's public key; make the pair if there is none yet.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.set_defaults(run=_show)


def _show(_: argparse.Namespace) -> int:
    path = key_path()
    public = signing.public_key(federation_key())
    print(f"public key   {signing.as_text(public)}")
    print(f"fingerprint  {signing.fingerprint(public)}")
    print(f"private key  {path}")
    return 0
