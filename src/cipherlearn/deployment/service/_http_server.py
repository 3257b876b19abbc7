"""Serving on a port by uvicorn, with limits on connections that uvicorn lacks."""

from __future__ import annotations

import resource
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from cipherlearn.deployment.service._connections import (
    ConnectionLimits,
    Connections,
    Door,
    watched,
)
from cipherlearn.deployment.service._logs import LOGGER
from cipherlearn.deployment.service._paced_http import PacedProtocol
from cipherlearn.deployment.service._turns import Turns

__all__ = ["serve"]

# Files of the service besides connections: the artefact, uploads, pipes of workers.
_OTHER_FILES = 200

# Connections that are accepted in one go, before any is counted. Those that are then refused still
# are open files when the next ones are accepted.
_BACKLOG = 64
_UNCOUNTED = 4 * _BACKLOG


def serve(
    app: FastAPI,
    host: str,
    port: int,
    limits: ConnectionLimits,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    shutdown_timeout: int = 30,
    on_ready: Callable[[int], object] | None = None,
) -> bool:
    """Serve until a signal ends it.

    Parameters
    ----------
    app : FastAPI
        Service that :func:`create_app` made.
    host : str
    port : int
        0 takes a free one.
    limits : ConnectionLimits
    certificate, key : Path or None, default=None
        PEM files, to serve HTTPS.
    shutdown_timeout : int, default=30
        Seconds for requests in progress when the service is ended.
    on_ready : callable or None, default=None
        Called with the number of the port, once the service takes connections.

    Returns
    -------
    bool
        Whether the service started.
    """
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
    connections = Connections(limits, app.state.metrics.dropped.inc)
    # Connections are counted before their TLS handshake. uvicorn would count them after it.
    protocol: Any = partial(Door, partial(PacedProtocol, Turns()), connections, context)
    _allow_open_files(limits.max_connections + _UNCOUNTED + _OTHER_FILES)
    config = uvicorn.Config(
        watched(app),
        host=host,
        port=port,
        backlog=_BACKLOG,
        http=protocol,
        loop="asyncio",
        ws="none",
        proxy_headers=bool(limits.proxies),
        forwarded_allow_ips=[*limits.proxies],
        timeout_keep_alive=limits.header_timeout,
        timeout_graceful_shutdown=shutdown_timeout,
        server_header=False,
        access_log=False,  # the service writes its own
        log_config=None,
    )
    scheme = "http" if context is None else "https"

    class Server(uvicorn.Server):
        async def startup(self, *args: Any, **kwargs: Any) -> None:
            await super().startup(*args, **kwargs)
            if self.started and on_ready is not None:
                on_ready(self.servers[0].sockets[0].getsockname()[1])

        def _log_started_message(self, listeners: Any) -> None:
            for listener in listeners:
                address, port, *_ = listener.getsockname()
                address = f"[{address}]" if ":" in address else address
                LOGGER.info(f"running on {scheme}://{address}:{port}")

    server = Server(config)
    server.run()
    return server.started


def _allow_open_files(n_files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < n_files:
        allowed = n_files if hard == resource.RLIM_INFINITY else min(n_files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < n_files:
            LOGGER.warning(f"only {allowed} files may be open, and the limits allow {n_files}")
