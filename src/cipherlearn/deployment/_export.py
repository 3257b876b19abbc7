"""Export of a compiled estimator to the artefacts of its client and its server."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from cipherlearn._checks import check_int
from cipherlearn._exceptions import ArtefactError, UnsupportedByEngineError
from cipherlearn._version import __version__
from cipherlearn.circuit._circuit import Circuit
from cipherlearn.deployment._client import FHEClient, raw_outputs
from cipherlearn.deployment._messages import Frame
from cipherlearn.deployment._server import FHEServer
from cipherlearn.deployment.artefacts._archive import write_file
from cipherlearn.deployment.artefacts._contents import ClientModel, ServerModel
from cipherlearn.deployment.artefacts._preprocessing import dump_preprocessing
from cipherlearn.deployment.artefacts._specs import read_specs
from cipherlearn.engines._options import CompileOptions
from cipherlearn.engines.concrete_python import ENGINE, engine_version
from cipherlearn.engines.concrete_python.client import ClientRuntime
from cipherlearn.engines.concrete_python.server import open_server
from cipherlearn.estimators._base import EncryptedPredictionNet, NotCompiledError
from cipherlearn.estimators._classifier import NeuralNetClassifier
from cipherlearn.program._file import save_program
from cipherlearn.program._passes import unsigned

__all__ = ["export"]


def export(
    model: EncryptedPredictionNet | Pipeline,
    directory: str | os.PathLike[str],
    *,
    trusted: Sequence[str] = (),
    n_test_rows: int = 2,
) -> tuple[Path, Path]:
    """Write the artefacts that a client and a server need.

    Before they get their names, both are loaded again and predict ``n_test_rows`` encrypted rows.
    That generates keys three times, so it takes some seconds.

    Parameters
    ----------
    model : NeuralNetClassifier, NeuralNetRegressor or Pipeline
        A fitted and compiled estimator, or a pipeline that ends in one. The steps before it
        travel in the client's artefact, as skops stores them.
    directory : str or path
        Where to write. Made if missing. Artefacts that are there are replaced.
    trusted : sequence of str, default=()
        Types and functions in the preceding steps that are not among scikit-learn's that are known
        to be safe, by full name, such as text vectorizers. Each client decides whether it trusts
        them too.
    n_test_rows : int, default=2
        Encrypted rows of the self-test, at least 1.

    Returns
    -------
    client, server : Path
        ``client.zip``, with what a client needs and no weights, and ``server.zip``, which only
        its owner may read.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the model is not fitted or not compiled.
    TypeError
        If it is no such model.
    ArtefactError
        If the preceding steps cannot be stored safely, or the self-test fails.
        ``UntrustedTypesError`` if they hold types that ``trusted`` does not name.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from cipherlearn import NeuralNetClassifier
    >>> from cipherlearn.deployment import export
    >>> clf = NeuralNetClassifier(module__n_layers=1, max_epochs=5)
    >>> pipe = make_pipeline(StandardScaler(), clf).fit([[0.0], [1.0]], ["no", "yes"])
    >>> circuit = pipe[-1].compile()
    >>> [path.name for path in export(pipe, tempfile.mkdtemp())]
    ['client.zip', 'server.zip']
    """
    check_int("n_test_rows", n_test_rows, 1)
    first, estimator, preprocessing = check_model(model, trusted)
    if not hasattr(estimator, "circuit_"):
        raise NotCompiledError(
            f"This {type(estimator).__name__} instance is not compiled yet. Call compile(), which "
            "chooses the error probability and the batch size, before exporting."
        )
    circuit = estimator.circuit_
    buffer = io.BytesIO()
    save_program(estimator.program_, buffer)
    program = buffer.getvalue()
    client = _client_model(first, estimator, program, _frames(circuit), preprocessing)
    archive = client.to_archive()
    server = ServerModel(_server_description(circuit), program, archive, client)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # On the same disk, so that a rename moves them.
    with tempfile.TemporaryDirectory(dir=directory, prefix=".untested-") as untested:
        paths = Path(untested, "client.zip"), Path(untested, "server.zip")
        for path, content in zip(paths, (archive, server.to_archive()), strict=True):
            # That of the server holds the weights.
            write_file(path, content.to_bytes(), is_private=path.name == "server.zip")
        _self_test(*paths, circuit, trusted, n_test_rows)
        client_path, server_path = (path.replace(directory / path.name) for path in paths)
    return client_path, server_path


def check_model(
    model: Any, trusted: Sequence[str]
) -> tuple[Any, EncryptedPredictionNet, bytes | None]:
    """Check that a model can be exported once it is compiled, which may take minutes.

    Returns
    -------
    first : estimator
        Estimator that takes the rows: the model, or the network if no step before it does anything.
    estimator : NeuralNetClassifier or NeuralNetRegressor
    preprocessing : bytes or None
        The steps before it, as clients load them.
    """
    estimator = model[-1] if isinstance(model, Pipeline) else model
    if not isinstance(estimator, EncryptedPredictionNet):
        raise TypeError(
            "Only a NeuralNetClassifier, a NeuralNetRegressor or a Pipeline that ends in one can "
            f"be exported. Got {type(estimator).__name__}. Of a search, export best_estimator_."
        )
    check_is_fitted(estimator)
    # Steps that do nothing are left out.
    if model is estimator or all(step in (None, "passthrough") for _, step in model.steps[:-1]):
        return estimator, estimator, None
    return model, estimator, dump_preprocessing(model[:-1], trusted)


def _client_model(
    first: Any,
    estimator: EncryptedPredictionNet,
    program_file: bytes,
    frames: dict[str, Frame],
    preprocessing: bytes | None,
) -> ClientModel:
    is_classifier = isinstance(estimator, NeuralNetClassifier)
    circuit, program = estimator.circuit_, estimator.program_
    names = getattr(first, "feature_names_in_", None)
    description = {
        "cipherlearn": __version__,
        "engine": {"name": ENGINE, "version": engine_version()},
        "estimator": "classifier" if is_classifier else "regressor",
        "n_features": int(first.n_features_in_),
        "n_network_features": program.n_features,
        "n_components": program.quantizer.n_components,
        "n_inputs": len(program.inputs),
        "feature_names": None if names is None else list(names),
        "classes": _describe_classes(estimator.classes_) if is_classifier else None,
        "probabilities": estimator._probability_rule() if is_classifier else None,
        "target_is_1d": None if is_classifier else estimator._target_is_1d,
        "batch_size": circuit.batch_size,
        "program_sha256": hashlib.sha256(program_file).hexdigest(),
        "frames": {name: frame.to_json() for name, frame in frames.items()},
    }
    # What is decrypted are the sums of the circuit's form.
    form = unsigned(program)
    return ClientModel(
        description,
        read_specs(
            circuit.files()["specs.json"],
            [len(columns) for columns in form.inputs],
            [len(layer.weights) for layer in form.output_layers],
            circuit.batch_size,
        ),
        form.quantizer,
        form.inputs,
        form.scaler,
        None if is_classifier else estimator.target_mean_,
        None if is_classifier else estimator.target_scale_,
        preprocessing,
    )


def _server_description(circuit: Circuit) -> dict[str, Any]:
    return {
        "error_probability": _error_probability(circuit),
        "achieved_p_error": circuit.p_error,
        "rounding": circuit.rounding,
        "flip_rate": circuit.flip_rate,
        "n_bootstraps": circuit.n_bootstraps,
    }


def _error_probability(circuit: Circuit) -> dict[str, float | None]:
    return {name: circuit.options[name] for name in ("p_error", "global_p_error")}


def _describe_classes(classes: Any) -> dict[str, Any]:
    values = classes.tolist()
    if not all(isinstance(value, str | bool | int | float) for value in values):
        raise ArtefactError(
            "Labels must be strings, numbers or booleans to be stored without pickle. "
            f"Got {classes!r}. Fit the model on such labels."
        )
    return {"dtype": classes.dtype.str if classes.dtype != object else "object", "values": values}


def _frames(circuit: Circuit) -> dict[str, Frame]:
    """Find the common structure of serialized keys, ciphertexts and results of a circuit."""
    specs, rng = circuit.files()["specs.json"], np.random.default_rng(0)
    client, samples = ClientRuntime(specs), []
    server = open_server(circuit.program, specs, CompileOptions(**circuit.options))
    for _ in range(2):
        client.generate_keys()
        codes = circuit.program.quantizer.random_codes(circuit.batch_size, rng)
        keys, ciphertexts = client.evaluation_keys(), client.encrypt(circuit.program.split(codes))
        (results,) = server.run([ciphertexts], server.load_keys(keys))
        samples.append({"evaluation_keys": [keys], "ciphertext": ciphertexts, "result": results})
    first, second = samples
    return {name: Frame.between(first[name], second[name]) for name in first}


def _self_test(
    client_path: Path, server_path: Path, circuit: Circuit, trusted: Sequence[str], n_rows: int
) -> None:
    """Predict encrypted rows with what was written, or raise ArtefactError."""
    client = FHEClient(client_path, trusted)
    try:
        server = FHEServer(server_path)
    except UnsupportedByEngineError:
        # The file is this process's own, so that it may be compiled.
        server = FHEServer(server_path, runtime="compiled")
    client.generate_keys()
    server.add_keys(client.evaluation_keys())
    codes = circuit.program.quantizer.random_codes(n_rows, np.random.default_rng(1))
    decrypted = raw_outputs(client, codes, server.evaluate)
    expected = circuit.program.dequantize(circuit.program.run(codes))
    differs = (decrypted != expected).any(axis=1)
    # Approximate rounding may change some rows, but not all of them.
    if differs.all() or (differs.any() and circuit.flip_rate == 0):
        raise ArtefactError(
            f"The exported client and server must predict what the model predicts. On "
            f"{differs.sum()} of {n_rows} encrypted rows they did not, so nothing was written. "
            "Please report this, with the versions of cipherlearn and its engine."
        )
