"""`hidenseek-edge web`: hands the phones' page out, or copies it to where a web server does."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_client.web import PAGE
from wire import command
from wire.errors import ConfigError, RuntimeMissing

EXAMPLES = """examples:
  hidenseek-edge web                                  on this machine only: http://localhost:8090
  hidenseek-edge web --bind 0.0.0.0 --cert deploy/nodes/broker/config/server.crt \\
      --cert-key deploy/nodes/broker/config/server.key      for phones: https, which they insist on
  hidenseek-edge web --to /var/www/join               for a web server that you have"""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "web",
        help="serve the page with which phones take part in their browsers",
        description="Serve the page with which phones take part in their browsers, or copy it. Browsers train only on "
        "pages that come over https, or from their own machine. An invitation's link tells the page where to connect.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("--port", type=int, default=8090, metavar="N", help="port to listen on; 0: any (default 8090)")
    parser.add_argument(
        "--bind", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)"
    )
    parser.add_argument("--cert", type=Path, metavar="FILE", help="certificate that the server shows, PEM: https")
    parser.add_argument("--cert-key", type=Path, metavar="FILE", help="its private key, if not in the same file")
    parser.add_argument("--to", type=Path, metavar="DIR", help="copy the page there and end")
    parser.set_defaults(run=_run)


def page() -> Path:
    """The page's folder.

    Raises:
        RuntimeMissing: if it was not built.
    """
    if not (PAGE / "index.html").exists():
        raise RuntimeMissing(
            "this installation has no page for phones",
            hint="Build it in a source tree: make web (needs clang, lld, wasi-libc, nodejs, npm); all else works",
        )
    return PAGE


def _run(arguments: argparse.Namespace) -> int:
    from edge_client import web_server

    folder = page()
    if arguments.to is not None:
        _copy(folder, arguments.to)
        return 0
    listen = (arguments.bind, arguments.port)
    with web_server.server(folder, *listen, arguments.cert, arguments.cert_key) as server:
        host = "localhost" if arguments.bind in LOOPBACK else arguments.bind
        scheme = "https" if arguments.cert else "http"
        print(f"the page: {scheme}://{host}:{server.server_address[1]}/; Ctrl-C stops it", flush=True)
        if not arguments.cert and arguments.bind not in LOOPBACK:
            print("other machines' browsers will not train on it over http: add --cert", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _copy(folder: Path, target: Path) -> None:
    import shutil

    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir()):
            shutil.copyfile(file, target / file.name)
    except OSError as error:
        raise ConfigError(
            f"cannot be written ({error.strerror})", where=str(target), hint="Name another: --to"
        ) from error
    print(f"copied the page to {target}; serve it over https")
