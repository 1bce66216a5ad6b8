"""`hidenseek broker up` and `enrol`: a broker run here, and devices answered that claim their accounts."""

from __future__ import annotations

import argparse
import threading
from contextlib import ExitStack

from coordinator import broker_accounts_command
from wire import command
from wire.errors import UnknownName

Subparsers = argparse._SubParsersAction

UP_EXAMPLES = """
examples:
  hidenseek broker up                                # all nodes of ./deploy
  hidenseek broker up --deploy deploy --node node-2  # one of them, on its machine
  hidenseek broker up --announce                     # and tell this network by mDNS where they are
"""


def add(actions: Subparsers[argparse.ArgumentParser]) -> None:
    """Both."""
    _add_up(actions)
    _add_enrol(actions)


def _add_up(actions: Subparsers[argparse.ArgumentParser]) -> None:
    up = actions.add_parser(
        "up",
        help="run the broker here, in the foreground",
        description="Run the broker on this machine, and start it again if it ends. Ctrl-C stops it; messages stay.",
        epilog=UP_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    broker_accounts_command.add_deploy_argument(up)
    up.add_argument(
        "--announce",
        action="store_true",
        help="answer by mDNS where the broker is: flashed devices ask for it when their address leads nowhere",
    )
    up.add_argument("--node", action="append", metavar="NAME", help="only this one of several (may be repeated)")
    up.set_defaults(run=_up)


def _add_enrol(actions: Subparsers[argparse.ArgumentParser]) -> None:
    enrol = actions.add_parser(
        "enrol",
        help="answer devices whose cards were just flashed",
        description="Give devices that hidenseek flash has made cards for their accounts, as each boots for the first "
        "time. hidenseek broker up does it by itself; this is for a broker that something else runs, on its machine.",
        epilog="examples:\n  hidenseek broker enrol\n  hidenseek broker enrol --deploy deploy",
        formatter_class=command.HelpFormatter,
    )
    broker_accounts_command.add_deploy_argument(enrol)
    enrol.add_argument(
        "--announce", action="store_true", help="answer by mDNS where the first node is, on this machine"
    )
    enrol.set_defaults(run=_enrol)


def _enrol(arguments: argparse.Namespace) -> int:
    from coordinator.brokers import deployment as deployments
    from coordinator.brokers.announce import announced
    from coordinator.brokers.enroller import Enroller

    deployment = deployments.load(arguments.deploy)
    with ExitStack() as stack:
        if arguments.announce:
            for name in stack.enter_context(announced(deployment.federation, deployment.broker_nodes()[:1])):
                print(f"announced in this network: {name}")
        print("answering devices that claim their accounts; Ctrl-C stops it", flush=True)
        Enroller(arguments.deploy, lambda line: print(line, flush=True)).run()
    return 0


def _up(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.text import Text

    from coordinator.brokers import deployment as deployments
    from coordinator.brokers.announce import announced
    from coordinator.brokers.enroller import Enroller
    from coordinator.brokers.up import Up, alone
    from wire.errors import did_you_mean

    deployment = deployments.load(arguments.deploy)
    nodes = deployment.broker_nodes()
    names = [node.name for node in nodes]
    for name in arguments.node or ():
        if name not in names:
            raise UnknownName(f"no node is called '{name}'", where="--node", hint=did_you_mean(name, names))
    chosen = [node for node in nodes if not arguments.node or node.name in arguments.node]
    console = Console()

    def say(node: str, line: str) -> None:
        prefix = Text(f"{node:<{max(map(len, names))}} ", style="cyan") if len(names) > 1 else Text()
        console.print(prefix + Text(line), soft_wrap=True)

    with ExitStack() as stack, alone(arguments.deploy, chosen):
        up = Up(arguments.deploy, deployment, chosen, say)
        enroller = Enroller(arguments.deploy, lambda line: say("claims", line))
        answering = threading.Thread(target=enroller.run, name="enroller", daemon=True)
        try:
            up.start()
            if arguments.announce:
                for name in stack.enter_context(announced(deployment.federation, chosen)):
                    console.print(f"announced in this network: {name}", highlight=False, soft_wrap=True)
            if nodes[0] in chosen:
                answering.start()
            for node in chosen:
                urls = [node.url, node.ws_url, *([node.certificate_url] if node.certificate_url else [])]
                console.print(f"{node.name} is up: {', '.join(urls)}", style="green", highlight=False, soft_wrap=True)
            console.print(
                f"CA for devices: {arguments.deploy / 'ca.crt'}; Ctrl-C stops it", highlight=False, soft_wrap=True
            )
            up.wait()
        finally:
            enroller.stopping.set()
            if answering.is_alive():
                answering.join()
            up.stop()
            console.print("stopped; messages and sessions stay", highlight=False, soft_wrap=True)
    return 0
