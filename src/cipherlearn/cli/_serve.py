"""``cipherlearn serve``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cipherlearn.cli._arguments import add_command

if TYPE_CHECKING:
    from cipherlearn.deployment.service import ServiceSettings

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
        help="file of bearer tokens, one a line, of which clients must send one. It is read again "
        "when it changes. The environment variable CIPHERLEARN_TOKEN is used otherwise; with "
        "neither, anybody may ask",
    )
    command.add_argument("--tls-certificate", type=Path, help="PEM file, to serve HTTPS")
    command.add_argument("--tls-key", type=Path, help="PEM file of its private key")
    command.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name of the service that clients use; may be repeated. Addresses, localhost and this "
        "machine's name are always allowed, and any name where there is a token, unless some are "
        "given. * allows any",
    )
    command.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="address or network of a reverse proxy, whose X-Forwarded-For header is trusted; may "
        "be repeated",
    )
    command.add_argument(
        "--runtime",
        default="kernels",
        choices=["kernels", "compiled"],
        help="what evaluates: Concrete's kernels, or a circuit that each worker compiles from the "
        "program. Compile only a server_zip that you trust (default: kernels)",
    )
    limits = command.add_argument_group("limits")
    for flag, default, text in (
        ("workers", 1, "processes that evaluate; they share the cores"),
        ("max-key-bytes", 2_000_000_000, "memory for keys that are ready for use"),
        ("max-key-store-bytes", 10_000_000_000, "disk space of keys; the least used go first"),
        ("max-body-bytes", 16_000_000, "largest body of a prediction"),
        (
            "max-pending",
            32,
            "predictions that may wait or run, half of them of one address; others get status 503",
        ),
        ("max-uploads", 16, "keys that may arrive at a time, likewise"),
        ("evaluation-timeout", 120, "seconds for one batch"),
        ("body-timeout", 300, "seconds in which a body must arrive"),
        ("max-connections", 500, "connections; the one that waits longest for its client goes"),
        ("max-peer-connections", 100, "connections of one address"),
        ("header-timeout", 20, "seconds for a TLS handshake and the head of a request"),
        ("answer-timeout", 300, "seconds for which an answer may wait for its reader"),
        ("shutdown-timeout", 30, "seconds for requests in progress when the service is ended"),
    ):
        limits.add_argument(
            f"--{flag}", type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    command.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])


def _serve(options: argparse.Namespace) -> None:
    try:
        from platformdirs import user_data_path

        from cipherlearn.deployment.service import create_app
        from cipherlearn.deployment.service._connections import ConnectionLimits
        from cipherlearn.deployment.service._http_server import serve
        from cipherlearn.deployment.service._logs import LOGGER, configure_logging
    except ImportError as error:
        raise ImportError(
            f"The service needs further packages ({error}): pip install 'cipherlearn[server]'"
        ) from error
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise ValueError("HTTPS needs both --tls-certificate and --tls-key. Got one of them.")
    configure_logging(options.log_level.upper())
    if options.data_dir is None:
        # Not the working directory, which may differ at the next start.
        options.data_dir = user_data_path("cipherlearn") / "keys"
    limits = ConnectionLimits(proxies=options.proxy, **_fields(ConnectionLimits, options))
    app = create_app(_settings(options))
    directory = options.data_dir.resolve()
    LOGGER.info("keys", extra={"fields": {"directory": str(directory)}})

    def show(port: int) -> None:
        # Where logs go to a file or a program, print nothing else.
        if sys.stderr.isatty():
            print(_ready(options, port), file=sys.stderr, flush=True)

    started = serve(
        app,
        options.host,
        options.port,
        limits,
        certificate=options.tls_certificate,
        key=options.tls_key,
        shutdown_timeout=options.shutdown_timeout,
        on_ready=show,
    )
    if not started:
        sys.exit(f"cipherlearn: error: The service did not start at {options.host}:{options.port}.")


def _settings(options: argparse.Namespace) -> ServiceSettings:
    from cipherlearn.deployment.service import ServiceSettings

    # Worker processes inherit the environment, and must not get the token.
    token = os.environ.pop("CIPHERLEARN_TOKEN", None)
    return ServiceSettings(
        tokens=() if token is None or options.token_file is not None else (token,),
        allowed_hosts=options.allowed_host,
        n_workers=options.workers,
        **_fields(ServiceSettings, options),
    )


def _fields(kind: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that are named as the fields of a dataclass."""
    given = vars(options)
    return {each.name: given[each.name] for each in fields(kind) if each.name in given}


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
