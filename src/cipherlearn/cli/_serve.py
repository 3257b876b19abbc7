"""``cipherlearn serve``."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from cipherlearn.cli._arguments import add_command, token

__all__ = ["add_serve"]


def add_serve(commands: Any) -> None:
    """Add the command to its parser."""
    command = add_command(
        commands,
        "serve",
        _serve,
        "Predict on encrypted rows over HTTP.",
        "The interface is documented at /docs. Logs are JSON lines without payloads, metrics for "
        "Prometheus are at /metrics. Needs: pip install 'cipherlearn[server]'.",
    )
    command.add_argument("server_zip", type=Path, help="the model's server.zip")
    command.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    command.add_argument(
        "--data-dir",
        type=Path,
        help="where clients' evaluation keys are kept (default: in the user's data directory)",
    )
    command.add_argument(
        "--token-file",
        type=Path,
        help="file of the bearer token that clients must send. The environment variable "
        "CIPHERLEARN_TOKEN is used otherwise; with neither, anybody may ask",
    )
    command.add_argument("--tls-certificate", type=Path, help="PEM file, to serve HTTPS")
    command.add_argument("--tls-key", type=Path, help="PEM file of its private key")
    limits = command.add_argument_group("limits")
    for flag, default, text in (
        ("workers", 1, "processes that evaluate; they share the cores"),
        ("max-key-bytes", 2_000_000_000, "memory for keys that are ready for use"),
        ("max-key-store-bytes", 10_000_000_000, "disk space of keys; the least used go first"),
        ("max-body-bytes", 16_000_000, "largest body of a prediction"),
        ("max-pending", 32, "predictions that may wait or run; further ones get status 503"),
        ("max-uploads", 16, "keys that may arrive at a time; further ones get status 503"),
        ("evaluation-timeout", 120, "seconds for one batch"),
        ("body-timeout", 300, "seconds in which a body must arrive"),
        ("shutdown-timeout", 30, "seconds for requests in progress when the service is ended"),
    ):
        limits.add_argument(
            f"--{flag}", type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    command.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])


def _serve(options: argparse.Namespace) -> None:
    try:
        import uvicorn
        from platformdirs import user_data_path

        from cipherlearn.deployment.service import ServiceSettings, create_app
        from cipherlearn.deployment.service._observability import configure_logging
    except ImportError as error:
        raise ImportError(
            f"The service needs further packages ({error}): pip install 'cipherlearn[server]'"
        ) from error
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise ValueError("HTTPS needs both --tls-certificate and --tls-key. Got one of them.")
    configure_logging(options.log_level)
    if options.data_dir is None:
        # Not the working directory, which may differ at the next start.
        options.data_dir = user_data_path("cipherlearn") / "keys"
    settings = ServiceSettings(
        server_zip=options.server_zip,
        data_dir=options.data_dir,
        token=token(options),
        n_workers=options.workers,
        max_key_bytes=options.max_key_bytes,
        max_key_store_bytes=options.max_key_store_bytes,
        max_body_bytes=options.max_body_bytes,
        max_pending=options.max_pending,
        max_uploads=options.max_uploads,
        evaluation_timeout=options.evaluation_timeout,
        body_timeout=options.body_timeout,
    )
    app = create_app(settings)
    directory = options.data_dir.resolve()
    logging.getLogger("cipherlearn.service").info(
        "keys", extra={"fields": {"directory": str(directory)}}
    )
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
        limit_concurrency=10 * (options.max_pending + options.max_uploads),
        timeout_graceful_shutdown=options.shutdown_timeout,
        access_log=False,  # the service writes its own
        log_config=None,
    )

    class Server(uvicorn.Server):
        async def startup(self, *args: Any, **kwargs: Any) -> None:
            await super().startup(*args, **kwargs)
            # Where logs go to a file or a program, print nothing else.
            if self.started and sys.stderr.isatty():
                port = self.servers[0].sockets[0].getsockname()[1]
                print(_ready(options, port), file=sys.stderr, flush=True)

    server = Server(config)
    server.run()
    if not server.started:
        sys.exit(f"cipherlearn: error: The service did not start at {options.host}:{options.port}.")


def _ready(options: argparse.Namespace, port: int) -> str:
    """Return the address of the service, and a command for a client on this machine."""
    scheme = "http" if options.tls_certificate is None else "https"
    # Clients cannot connect to the address that stands for all addresses.
    host = "localhost" if options.host in ("0.0.0.0", "::", "") else options.host
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    command = ["cipherlearn", "predict", "rows.csv", "predictions.csv", "--url", url]
    command += ["--keys", "my.keys"]
    if options.token_file is not None:
        command += ["--token-file", str(options.token_file)]
    if options.tls_certificate is not None:
        command += ["--ca-file", str(options.tls_certificate)]
    return (
        f"Ready at {url}, with clients' evaluation keys in {options.data_dir.resolve()}. "
        f"A client types:\n\n  {shlex.join(command)}\n"
    )
