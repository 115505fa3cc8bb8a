"""The nodes of a running Ray cluster: prints them, or waits until those that are named are there.

    python cluster/nodes.py [--wait head,gpu,verifier | --wait 3] [--gone gpu] [--limit 600]

Asks the dashboard at RAY_API_SERVER_ADDRESS, with the token that the environment names. Exit code 3
when they do not come, or do not go, within `--limit` seconds. Ray may have a node that is lost for
alive for a minute, so one that is to come back under the same name has to be gone first.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

PATIENCE_S = 1.0
TOLD_EVERY_S = 15.0
SHOWN = ("CPU", "GPU", "gpu", "verifier")


def missing(asked: str, alive: Sequence[str]) -> str:
    """What of `asked`, a number of nodes or their names, is not among the names `alive`."""
    if asked.isdigit():
        return "" if len(alive) >= int(asked) else f"{int(asked) - len(alive)} of {asked} nodes"
    return ", ".join(name for name in asked.split(",") if name not in alive)


def left(gone: str, alive: Sequence[str]) -> str:
    """Which of the names in `gone` are among the names `alive` still."""
    return ", ".join(f"the loss of {name}" for name in gone.split(",") if name in alive)


def row(node: Any) -> str:
    """A node as a line: name, state, what it offers."""
    offers = (f"{name}={node.resources_total.get(name, 0):g}" for name in SHOWN)
    return f"{node.node_name:20} {node.state:6} {' '.join(offers)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait", default="0", help="names with commas between, or a number")
    parser.add_argument("--gone", default="", help="names with commas between")
    parser.add_argument("--limit", type=float, default=600, help="seconds")
    options = parser.parse_args()
    from ray.exceptions import AuthenticationError
    from ray.util.state import list_nodes

    logging.getLogger("ray").setLevel(logging.ERROR)
    began = told = time.monotonic()
    while True:
        reason = ""
        try:
            nodes = list_nodes(raise_on_missing_output=False)
        except AuthenticationError as error:
            sys.exit(f"the cluster refuses the token: {str(error).splitlines()[0]}")
        except Exception as error:  # of a dashboard that is not up yet: of several kinds
            nodes, reason = [], f" (no answer: {(str(error).splitlines() or ['?'])[0]})"
        alive = [node.node_name for node in nodes if node.state == "ALIVE"]
        lacking = missing(options.wait, alive) or left(options.gone, alive)
        if not lacking and not reason:
            print("\n".join(row(node) for node in nodes))
            return
        now = time.monotonic()
        if now - began > options.limit:
            what = f"missing after {options.limit:g} s: {lacking}" if lacking else "no nodes"
            print(f"{what}{reason}", file=sys.stderr)
            sys.exit(3)
        if now - told > TOLD_EVERY_S:
            told = now
            print(f"waiting for {lacking}, {now - began:.0f} s{reason}", file=sys.stderr)
        time.sleep(PATIENCE_S)


if __name__ == "__main__":
    main()
