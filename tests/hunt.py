"""Readers of mutants in a process whose death is noticed.

A mutant follows from its format, its number and the seed alone, so that one that did harm can be
made again: ``python tests/hunt.py DIRECTORY FORMAT SEED NUMBER 1``. The directory holds what
:func:`write_originals` wrote.
"""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import hashlib
import io
import json
import random
import resource
import selectors
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mutants import mutated, mutated_artefact, mutated_json, mutated_message, mutated_zip
from scripted import Scripted, http_response

from cipherlearn import load_program
from cipherlearn._exceptions import CipherlearnError
from cipherlearn.deployment import FHEClient, FHEServer, RemoteModel
from cipherlearn.deployment._messages import Kind, Message
from cipherlearn.deployment.artefacts._archive import Archive

# Seconds of computing and of waiting that a mutant may take, and bytes that it may add to the
# largest memory of its process.
MAX_CPU_SECONDS, MAX_SECONDS, MAX_BYTES = 60, 600, 1 << 30

# The process gets no more than this, so that a mutant cannot fill the machine.
_ADDRESS_SPACE = 16 << 30

FORMATS = (
    "client.zip",
    "server.zip",
    "program.zip",
    "key file",
    "message",
    "result",
    "error body",
)

_KINDS = ("linear", "bootstrapped")
_ROWS = np.linspace(-3, 3, 8).reshape(2, 4)


@dataclass
class Report:
    """What became of mutants, the harm that some did, and the memory that they added at most."""

    outcomes: Counter[str] = field(default_factory=Counter)
    harm: list[str] = field(default_factory=list)
    n_bytes: int = 0


def hunt(
    directory: Path, name: str, n_mutants: int, seed: int = 0, script: str = __file__
) -> Report:
    """Read mutants of a format in one process, and in another one after each that ends it."""
    report, number = Report(), 0
    while number < n_mutants:
        command = [sys.executable, script, str(directory), name, str(seed), str(number)]
        with subprocess.Popen(
            [*command, str(n_mutants - number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            for outcome, harm, n_bytes in _lines(process):
                report.outcomes[outcome] += 1
                report.n_bytes = max(report.n_bytes, n_bytes)
                report.harm += [f"{name}, seed {seed}, number {number}: {harm}"] if harm else []
                number += 1
            if number == n_mutants:
                break
            hangs = process.poll() is None
            process.kill()
            harm = "takes too long" if hangs else f"ends the process with {process.wait()}"
        report.outcomes["fatal"] += 1
        report.harm.append(f"{name}, seed {seed}, number {number}: {harm}")
        number += 1
    return report


def _lines(process: subprocess.Popen[str]) -> Iterator[tuple[str, str, int]]:
    """Give what the process says of each mutant, until it ends or says nothing for too long."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(MAX_SECONDS):
            line = process.stdout.readline()
            if not line:
                process.wait()
                return
            outcome, harm, n_bytes = json.loads(line)
            yield outcome, harm, n_bytes


def write_originals(directory: Path, linear: Path, bootstrapped: Path) -> None:
    """Write what mutants are made of, from directories of artefacts."""
    directory.mkdir(exist_ok=True)
    for kind, artefacts in zip(_KINDS, (linear, bootstrapped), strict=True):
        for name in ("client.zip", "server.zip"):
            (directory / f"{kind}.{name}").write_bytes((artefacts / name).read_bytes())
        client = FHEClient(artefacts / "client.zip")
        client.generate_keys()
        client.save_keys(directory / f"{kind}.keys")


class Readers:
    """What makes a mutant of each format and reads it, as a client or a server does."""

    def __init__(self, directory: Path) -> None:
        self._client_zips, self._server_zips, self._keys = (
            {kind: (directory / f"{kind}.{name}").read_bytes() for kind in _KINDS}
            for name in ("client.zip", "server.zip", "keys")
        )
        self._scratch = directory / f"scratch.{random.SystemRandom().getrandbits(64)}"
        self._client = FHEClient(directory / "linear.client.zip")
        self._client.load_keys(directory / "linear.keys")
        self._server = FHEServer(directory / "linear.server.zip")
        self._server.add_keys(self._client.evaluation_keys())
        (self._ciphertext,) = self._client.encrypt(_ROWS)
        self._reloading = {
            kind: FHEClient.from_bytes(content) for kind, content in self._client_zips.items()
        }
        self._answer = self._server.run(self._ciphertext)
        self._response = http_response(200, self._client_zips["linear"])
        self._service = Scripted(then=lambda: self._response)
        self._remote = RemoteModel(self._service.url, n_retries=0, timeout=5, token="secret")
        readers = (
            self._read_client,
            self._read_server,
            self._read_program,
            self._read_keys,
            self._read_message,
            self._read_result,
            self._read_response,
        )
        self.formats = dict(zip(FORMATS, readers, strict=True))

    def close(self) -> None:
        """Remove what was written."""
        self._scratch.unlink(missing_ok=True)

    def _read_client(self, rng: random.Random) -> None:
        kind = rng.choice(_KINDS)
        client = FHEClient.from_bytes(mutated_artefact(rng, "client", self._client_zips[kind]))
        assert repr(client)
        if kind == "bootstrapped" and rng.random() < 0.97:
            # Keys for bootstraps take a second.
            self._prepare(client)
            return
        if not self._prepare(client):
            return
        client.generate_keys()
        sent = Message.from_bytes(next(client.encrypt(_ROWS)), Kind.CIPHERTEXT)
        payload = rng.randbytes(client._model.frames["result"].n_payload)
        answer = Message(Kind.RESULT, sent.scope, sent.key, payload).to_bytes()
        client.decode(client.decrypt([answer], client.description["batch_size"]))

    def _prepare(self, client: FHEClient) -> bool:
        """Return whether a client takes rows. Those that it refuses raise as in scikit-learn."""
        try:
            client._quantize(_ROWS)
        except CipherlearnError:
            raise
        except (TypeError, ValueError):
            return False
        return True

    def _read_server(self, rng: random.Random) -> None:
        self._scratch.write_bytes(
            mutated_artefact(rng, "server", self._server_zips[rng.choice(_KINDS)])
        )
        server = FHEServer(self._scratch)
        assert repr(server)
        frames = server._served.frames
        if max(frames[name].n_payload for name in ("evaluation_keys", "ciphertext")) > 10**5:
            return
        keyset = bytes.fromhex(server.description["keyset_id"])
        payload = rng.randbytes(frames["evaluation_keys"].n_payload)
        keys = Message(Kind.EVALUATION_KEYS, keyset, bytes(32), payload)
        key_id = bytes.fromhex(server.add_keys(keys.to_bytes()))
        payload = rng.randbytes(frames["ciphertext"].n_payload)
        scope = bytes.fromhex(server.model_id)
        server.run(Message(Kind.CIPHERTEXT, scope, key_id, payload).to_bytes())

    def _read_program(self, rng: random.Random) -> None:
        served = Archive.from_bytes(self._server_zips[rng.choice(_KINDS)], "server")
        program = load_program(io.BytesIO(mutated_zip(rng, served.members["program.zip"])))
        assert repr(program)
        program.run(np.zeros((2, program.n_codes), dtype=np.int64))

    def _read_keys(self, rng: random.Random) -> None:
        # Those for bootstraps have megabytes.
        kind = "linear" if rng.random() < 0.97 else "bootstrapped"
        content, start = self._keys[kind], 68
        if rng.random() < 0.2:
            content = mutated(rng, content)
        else:
            keys = mutated(rng, content[start + 32 :])
            digest = hashlib.sha256(content[:start] + keys).digest()
            content = content[:start] + digest + keys
        self._scratch.write_bytes(content)
        self._scratch.chmod(0o600)
        client = self._reloading[kind]
        client.load_keys(self._scratch)
        assert all(client.encrypt(_ROWS))
        assert client.evaluation_keys()

    def _read_message(self, rng: random.Random) -> None:
        if rng.random() < 0.3:
            keys = self._client.evaluation_keys()
            self._server.add_keys(mutated_message(rng, keys, Kind.EVALUATION_KEYS))
        else:
            self._server.run(mutated_message(rng, self._ciphertext, Kind.CIPHERTEXT))

    def _read_result(self, rng: random.Random) -> None:
        answer = mutated_message(rng, self._answer, Kind.RESULT)
        self._client.decode(self._client.decrypt([answer], 2))

    def _read_response(self, rng: random.Random) -> None:
        """Ask a service that answers with a mutant."""
        error = {"status": rng.choice((400, 404, 500, 503)), "detail": "The service failed."}
        body = mutated_json(rng, json.dumps(error).encode())
        in_stream = rng.random() < 0.5
        if in_stream:
            body = Message(Kind.ERROR, bytes(32), bytes(32), body).to_bytes()
        response = http_response(200 if in_stream else error["status"], body)
        if rng.random() < 0.6:
            response = mutated(rng, response)
        self._response = response
        if rng.random() < 0.3:
            RemoteModel(self._service.url, n_retries=0, timeout=5, token="secret").close()
        self._remote.predict(_ROWS[:1])


def main(directory: Path, name: str, seed: int, first: int, n_mutants: int) -> None:
    """Read mutants, and print a line of JSON for each."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    readers = Readers(directory)
    read, largest = readers.formats[name], _largest_memory()
    before = largest
    for number in range(first, first + n_mutants):
        outcome, harm = "read", ""
        # A signal ends a process that takes more.
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + MAX_CPU_SECONDS, resource.RLIM_INFINITY))
        try:
            read(random.Random(f"{name} {seed} {number}"))
        except CipherlearnError:
            outcome = "refused"
        except Exception:
            outcome, harm = "raised", traceback.format_exc()
        if _largest_memory() > largest + MAX_BYTES:
            harm = f"takes {(_largest_memory() - largest) >> 20} MiB"
        largest = max(largest, _largest_memory())
        print(json.dumps([outcome, harm, largest - before]), flush=True)
    readers.close()


def _largest_memory() -> int:
    """Bytes that this process had in memory when it had most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
