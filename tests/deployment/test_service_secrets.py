"""Secrets stay with the client, and traffic can be encrypted."""

# Deployment needs it.
# engine: concrete-python

from __future__ import annotations

import contextlib
import socket
import threading

import numpy as np
import pytest
from serving import Service, needs_proc

from cipherlearn.deployment import RemoteError, RemoteModel

pytestmark = needs_proc


class Recorder:
    """A proxy that keeps what passes in both directions."""

    def __init__(self, url):
        host, port = url.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.traffic = bytearray()
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.traffic += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def secret_patterns(client):
    """Parts of the secret keys in every form in which they might leak."""
    words = np.frombuffer(client._exchange.keys.runtime.secret_keys(), "<u8")
    edges = np.flatnonzero(np.diff(words <= 1, prepend=False, append=False)).reshape(-1, 2)
    runs = [words[start:end] for start, end in edges if end - start > 500]
    assert runs, "the secret keys were not found in their own serialization"
    patterns = [client._exchange.keys.runtime.secret_keys()[-64:]]
    for run in runs:
        for start in range(0, len(run) - 256, 128):
            bits = run[start : start + 256].astype(np.uint8)
            patterns += [
                run[start : start + 32].tobytes(),
                run[start : start + 32].byteswap().tobytes(),
                bits[:64].tobytes(),
                np.packbits(bits).tobytes(),
                np.packbits(bits, bitorder="little").tobytes(),
            ]
    return patterns


def test_no_secret_reaches_the_server(tmp_path, artefacts, labelled_rows):
    X, _ = labelled_rows
    with Service(artefacts / "server.zip", tmp_path / "keys") as service:
        recorder = Recorder(service.url)
        remote = RemoteModel(recorder.url)
        remote.predict(X[:2])
        recorder.close()
        patterns = secret_patterns(remote.client_)
        assert len(patterns) > 50
        (stored,) = (path for path in service.data_dir.iterdir() if path.name != ".lock")
        places = {
            "traffic": bytes(recorder.traffic),
            "artefact": (artefacts / "server.zip").read_bytes(),
            "stored keys": stored.read_bytes(),
            "logs": service.log_path.read_bytes(),
        }
    # The search would find the keys where they are.
    assert all(
        pattern in remote.client_._exchange.keys.runtime.secret_keys() for pattern in patterns[1::5]
    )
    assert len(places["traffic"]) > len(places["stored keys"])
    for place, content in places.items():
        assert not any(pattern in content for pattern in patterns), place


def test_logs_are_json_without_payloads(tmp_path, linear_artefacts, labelled_rows):
    with Service(linear_artefacts / "server.zip", tmp_path / "keys") as service:
        RemoteModel(service.url).predict(labelled_rows[0][:4])
        service.stop()  # the last line is written after the answer
        records = [record for record in service.logs() if record["event"] == "request"]
        (predicted,) = [record for record in records if record["path"] == "/v1/predict"][-1:]
        assert predicted["status"] == 200
        assert predicted["bytes_in"] > 0
        assert predicted["bytes_out"] > predicted["bytes_in"]
        assert set(predicted) == {
            "time",
            "level",
            "logger",
            "event",
            "request_id",
            "client",
            "method",
            "path",
            "ms",
            "bytes_in",
            "bytes_out",
            "status",
        }
        assert max(len(line) for line in service.log_path.read_text().splitlines()) < 1000


def test_tls_is_served(tmp_path, linear_artefacts, deployed_linear, labelled_rows):
    X, _ = labelled_rows
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    _write_certificate(key, certificate)
    flags = ("--tls-key", str(key), "--tls-certificate", str(certificate))
    with Service(linear_artefacts / "server.zip", tmp_path / "keys", *flags) as service:
        assert service.url.startswith("https://")
        url = service.url.replace("127.0.0.1", "localhost")
        with pytest.raises(RemoteError, match="certificate"):
            RemoteModel(url, n_retries=0)
        with RemoteModel(url, verify=certificate) as remote:
            np.testing.assert_array_equal(remote.predict(X[:3]), deployed_linear.predict(X[:3]))


def _write_certificate(key_path, certificate_path):
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
