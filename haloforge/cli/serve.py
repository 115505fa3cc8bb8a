"""`halo-forge serve`."""

import os
from typing import Any

import click

from haloforge.cli.options import settings_of, settings_options


@click.command("serve")
@click.option(
    "--model",
    "serve__models",
    multiple=True,
    metavar="[NAME=]MODEL",
    help="An adapter, a base, or a RAFT run's folder, whose adapters are served as they come; may "
    "be repeated.",
)
@click.option("--host", "serve__host", help="Where to listen.  [default: 127.0.0.1]")
@click.option("--port", "serve__port", type=int, help="[default: 8000]")
@click.option(
    "--require-key",
    "serve__require_key",
    is_flag=True,
    default=None,
    help="Do not start without an API key in HALOFORGE_API_KEY.",
)
@click.option("--detach", is_flag=True, help="With --address: it stays when the command has ended.")
@settings_options
def serve_command(detach: bool, serve__models: tuple[str, ...], **options: Any) -> None:
    """Serves models by an OpenAI-compatible API, by Ray Serve, until Ctrl-C.

    Where HALOFORGE_API_KEY is set, requests need that key.
    """
    # Adapters are applied beside the base, several at once: nothing is merged.
    options |= {"serve__models": list(serve__models) or None, "rollout__policy_swap": "lora"}
    settings = settings_of(**options)
    from haloforge.preflight import check_serve
    from haloforge.session import Session

    check_serve(settings)
    with Session(settings) as session:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # here; Ray's processes have begun
        from haloforge.serve.run import run_app

        run_app(session, detach)
