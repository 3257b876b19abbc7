"""Settings of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from cipherlearn._checks import check_int

__all__ = ["ServiceSettings"]


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of a service: its files and limits.

    Parameters
    ----------
    server_zip : Path
        The artefact to serve.
    data_dir : Path
        Where uploaded evaluation keys are kept.
    tokens : sequence of str, default=()
        Tokens, of which clients must send one as ``Authorization: Bearer TOKEN``.
    token_file : Path or None, default=None
        File of further tokens, one a line, which is read again whenever it changes. With neither,
        anybody may ask.
    allowed_hosts : sequence of str, default=()
        Names by which clients reach the service. Its addresses, ``localhost`` and the machine's
        own name need not be among them. Where a token is needed, any name will do unless some
        are given. ``"*"`` stands for any.
    n_workers : int, default=1
        Processes that evaluate, each a batch at a time. They share the cores.
    max_key_bytes : int, default=2 GB
        Memory for keys that are ready for use, of all workers together. Those least recently used
        go first.
    max_key_store_bytes : int, default=10 GB
        Disk space for keys, of which each takes at least 65536 bytes. Those least recently used are
        deleted first.
    max_body_bytes : int, default=16 MB
        Largest body of a prediction. Keys have a length of their own.
    max_pending : int, default=32
        Predictions that may arrive, wait or run at a time, which bounds the memory of their bodies.
        Further ones are told to come back, as are those that one peer has more than half of.
    max_uploads : int, default=16
        Keys that may arrive at a time, likewise.
    evaluation_timeout : int, default=120
        Seconds for one batch, from its start.
    body_timeout : int, default=300
        Seconds in which a body must arrive.
    runtime : {"kernels", "compiled"}, default="kernels"
        Whether Concrete's kernels evaluate, or a circuit that each worker compiles when it starts.
    """

    server_zip: Path
    data_dir: Path
    tokens: Sequence[str] = field(default=(), repr=False)
    token_file: Path | None = None
    allowed_hosts: Sequence[str] = ()
    n_workers: int = 1
    max_key_bytes: int = 2_000_000_000
    max_key_store_bytes: int = 10_000_000_000
    max_body_bytes: int = 16_000_000
    max_pending: int = 32
    max_uploads: int = 16
    evaluation_timeout: int = 120
    body_timeout: int = 300
    runtime: str = "kernels"

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.type == "int":
                check_int(each.name, getattr(self, each.name), 1)
