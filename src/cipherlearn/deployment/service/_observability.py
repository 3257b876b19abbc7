"""Requests in logs and metrics. Neither holds a payload."""

from __future__ import annotations

import time
import uuid
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.requests import Request

from cipherlearn.deployment.service._logs import AUDIT, LOGGER

__all__ = ["AccessLog", "Metrics", "audit"]

_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

# Characters of a path or method, which clients may make long, that are logged.
_LOGGED_LENGTH = 200


class Metrics:
    """Metrics for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "cipherlearn_requests",
            "Requests.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "cipherlearn_request_seconds",
            "Seconds of a request.",
            ["route"],
            registry=self.registry,
        )
        self.evaluations = Counter(
            "cipherlearn_evaluations", "Batches predicted.", registry=self.registry
        )
        self.restarts = Counter(
            "cipherlearn_worker_restarts", "Workers replaced.", registry=self.registry
        )
        self.pending = Gauge(
            "cipherlearn_pending",
            "Predictions arriving, waiting or running.",
            registry=self.registry,
        )
        self.keys = Gauge("cipherlearn_keys", "Clients' keys on disk.", registry=self.registry)
        self.key_bytes = Gauge(
            "cipherlearn_key_bytes", "Disk space of keys.", registry=self.registry
        )
        self.dropped = Counter(
            "cipherlearn_connections_dropped",
            "Connections closed because of a limit on their number or time.",
            registry=self.registry,
        )


class AccessLog:
    """ASGI middleware that logs and counts each request."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        record = {"bytes_in": 0, "bytes_out": 0, "status": 0}

        async def counting_receive() -> Any:
            message = await receive()
            record["bytes_in"] += len(message.get("body", b""))
            return message

        async def counting_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                record["status"] = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                ]
            record["bytes_out"] += len(message.get("body", b""))
            await send(message)

        start = time.perf_counter()
        try:
            await self._app(scope, counting_receive, counting_send)
        except Exception:
            # Starlette sends the answer 500 outside of this middleware.
            record["status"] = 500
            raise
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "unmatched")
            # Clients may send any method, and must not create metrics with it.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, record["status"]).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            client = scope.get("client")
            LOGGER.info(
                "request",
                extra={
                    "fields": {
                        "request_id": request_id,
                        "client": client[0] if client else None,
                        "method": scope["method"][:_LOGGED_LENGTH],
                        "path": scope["path"][:_LOGGED_LENGTH],
                        "ms": round(1000 * seconds, 1),
                        **record,
                    }
                },
            )


def audit(event: str, request: Request, **fields: object) -> None:
    """Log what became of keys, and at whose request."""
    client = request.client.host if request.client else None
    named = {"request_id": request.state.request_id, "client": client}
    AUDIT.info(event, extra={"fields": {**named, **fields}})
