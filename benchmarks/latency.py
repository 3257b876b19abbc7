"""Latency, keys and accuracy of encrypted prediction, beside Concrete-ML and TenSEAL.

    python benchmarks/latency.py --output benchmarks/results \
        [--concrete-ml PYTHON] [--tenseal PYTHON] [--mnist mnist.npz] [--rows 30]

Every network is measured in a process of its own, on the same rows of the same split, at an error
probability of 2**-40 per bootstrap. That is the default both here and in Concrete-ML. Ours are
evaluated by the kernels and by the compiled circuit, which take turns. The floor is the time of the
bootstraps and keyswitches alone, divided by the threads. The two flags name the Python of virtual
environments made by ``pip install concrete-ml`` and ``pip install tenseal numpy``. ``--mnist``
names a file of arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``, as Keras distributes it.
It is measured on at least 100 rows and by fewer networks. Writes ``latency.csv``, ``latency.md``
and ``latency.png``, and resumes from what the CSV holds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from report import encrypted_environment, header, row
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from cipherlearn import presets

DATASETS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
BATCH = 8
# Parameters of each, and how its circuit rounds.
OURS = {
    "cipherlearn, default": ({}, "exact"),
    "cipherlearn, LINEAR": (presets.LINEAR, "exact"),
    "cipherlearn, FAST": (presets.FAST, "exact"),
    "cipherlearn, FAST without wide path": (
        {**presets.FAST, "module__wide_path": False},
        "exact",
    ),
    "cipherlearn, ACCURATE": (presets.ACCURATE, "exact"),
    **{
        f"cipherlearn, 32 neurons, {n_bits} bits": (
            {"module__n_hidden_neurons": 32, "module__n_hidden_accum_bits": n_bits},
            "exact",
        )
        for n_bits in (4, 5)
    },
    "cipherlearn, 32 neurons, 5 bits rounded to 4": (
        {
            "module__n_hidden_neurons": 32,
            "module__n_hidden_accum_bits": 5,
            "module__rounding_bits": 4,
        },
        "approximate",
    ),
}
PEER_DEFAULT = "Concrete-ML, default"
PEER = {
    PEER_DEFAULT: {"module__n_layers": 3},
    **{
        f"Concrete-ML, 2 layers, {n} neurons, {bits} bits": {
            "module__n_layers": 2,
            "module__n_w_bits": bits,
            "module__n_a_bits": bits,
            "n_neurons": n,
            "max_epochs": 150,
            "batch_size": 32,
            "lr": 0.01,
        }
        for n in (8, 16)
        for bits in (2, 3, 4)
    },
}
# Networks that MNIST is measured with. Concrete-ML's default has 3136 neurons a layer there.
ON_MNIST = (
    *("cipherlearn, default", "cipherlearn, LINEAR", "cipherlearn, FAST", "cipherlearn, ACCURATE"),
    "Concrete-ML, 2 layers, 16 neurons, 3 bits",
)
PUBLISHED = [
    ("FHE-DiNN, 30 neurons (Bourse et al., 2018)", 93.7, 0.49),
    ("FHE-DiNN, 100 neurons (Bourse et al., 2018)", 96.4, 1.6),
    ("TT-TFHE (Benamira et al., 2023)", None, 4.4),
]
CKKS = {f"TenSEAL, {n} neurons": n for n in (8, 32)}
COLUMNS = {
    "dataset": "data set",
    "model": "model",
    "clear_accuracy": "clear accuracy, %",
    "encrypted_accuracy": "encrypted accuracy, %",
    "rows": "rows",
    "encrypted_equals_clear": "encrypted = clear, %",
    "simulated_minus_clear": "simulated - clear on 1000 rows, points",
    "seconds": "s a row",
    "compiled": "s a row, compiled",
    "batch_seconds": f"s a row, batches of {BATCH}",
    "estimated": "estimated s a row",
    "floor_ratio": "ratio to the floor",
    "bootstraps_share": "of it bootstraps, %",
    "keyswitches_share": "keyswitches, %",
    "masks_share": "masks, %",
    "bootstraps": "bootstraps",
    "compile_seconds": "compile, s",
    "keygen_seconds": "key generation, s",
    "key_bytes": "keys, MB",
    "ready_key_bytes": "keys ready, MB",
    "ciphertext_bytes": "ciphertexts, kB",
    "peak_memory": "peak memory, MB",
}
SCALES = {
    "clear_accuracy": 100,
    "encrypted_accuracy": 100,
    "encrypted_equals_clear": 100,
    "simulated_minus_clear": 100,
    "bootstraps_share": 100,
    "keyswitches_share": 100,
    "masks_share": 100,
    "key_bytes": 1e-6,
    "ready_key_bytes": 1e-6,
    "ciphertext_bytes": 1e-3,
    "peak_memory": 1e-6,
}
DECIMALS = {
    "seconds": 4,
    "compiled": 4,
    "batch_seconds": 4,
    "estimated": 4,
    "floor_ratio": 2,
    "rows": 0,
    "bootstraps": 0,
}


def split(load) -> dict[str, np.ndarray]:
    X, y = load(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    scaler = StandardScaler().fit(X_train)
    return {
        "X_train": scaler.transform(X_train),
        "X_test": scaler.transform(X_test),
        "y_train": y_train,
        "y_test": y_test,
    }


def read_mnist(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    return {
        "X_train": arrays["x_train"].reshape(-1, 784) / 255,
        "X_test": arrays["x_test"].reshape(-1, 784) / 255,
        "y_train": arrays["y_train"].astype(int),
        "y_test": arrays["y_test"].astype(int),
    }


def square_network(data: dict[str, np.ndarray], n_neurons: int) -> list[list]:
    """Train the weights of a float network whose activation is the square."""
    torch.manual_seed(0)
    X = torch.as_tensor(data["X_train"], dtype=torch.float32)
    y = torch.as_tensor(data["y_train"])
    first = torch.nn.Linear(X.shape[1], n_neurons)
    second = torch.nn.Linear(n_neurons, int(y.max()) + 1)
    parameters = [*first.parameters(), *second.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(second(first(X) ** 2), y).backward()
        optimizer.step()
    matrices = (first.weight.T, first.bias, second.weight.T, second.bias)
    return [matrix.detach().tolist() for matrix in matrices]


def run_worker(python: str, name: str, task: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, **task["data"])
        process = subprocess.run(
            [python, "-m", f"latency_workers.{name}"],
            input=json.dumps({**task, "data": str(path)}),
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
        )
    if process.returncode:
        raise RuntimeError(f"{name} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def measurements(arguments):
    """Name each measurement, with a function that makes it."""
    for dataset in arguments.datasets:
        data = split(DATASETS[dataset])
        for model, (settings, rounding) in OURS.items():
            task = {"settings": settings, "rounding": rounding, "batch": BATCH}
            task |= {"data": data, "rows": arguments.rows, "repeats": arguments.repeats}
            yield dataset, model, lambda task=task: run_worker(sys.executable, "ours", task)
        if arguments.tenseal:
            for model, n_neurons in CKKS.items():
                task = {"data": data, "rows": arguments.rows}
                task["weights"] = square_network(data, n_neurons)
                yield (
                    dataset,
                    model,
                    lambda task=task: run_worker(arguments.tenseal, "ckks", task),
                )
        if arguments.concrete_ml:
            for model, settings in PEER.items():
                rows = arguments.peer_default_rows if model == PEER_DEFAULT else arguments.rows
                task = {"settings": settings, "data": data, "rows": rows}
                yield (
                    dataset,
                    model,
                    lambda task=task: run_worker(arguments.concrete_ml, "concrete_ml", task),
                )
    if arguments.mnist:
        task = {"data": read_mnist(arguments.mnist), "batch": BATCH}
        task |= {"rows": max(100, arguments.rows), "repeats": arguments.repeats}
        for model in ON_MNIST:
            if model in OURS:
                settings, rounding = OURS[model]
                more, python, worker = {"rounding": rounding}, sys.executable, "ours"
            elif arguments.concrete_ml:
                # 1 epoch of MNIST has as many steps as 15 of a set of 4000 rows.
                settings = {**PEER[model], "max_epochs": 10}
                more, python, worker = {}, arguments.concrete_ml, "concrete_ml"
            else:
                continue
            asked = {**task, **more, "settings": settings}
            yield (
                "MNIST",
                model,
                lambda asked=asked, python=python, worker=worker: run_worker(python, worker, asked),
            )


def to_markdown(table: pd.DataFrame) -> str:
    lines = [encrypted_environment(), "", *header(COLUMNS.values())]
    for record in table.to_dict("records"):
        cells = []
        for name in COLUMNS:
            value = record.get(name)
            if isinstance(value, str):
                cells.append(value)
            elif value is None or np.isnan(value):
                cells.append("")
            else:
                cells.append(f"{value * SCALES.get(name, 1):.{DECIMALS.get(name, 1)}f}")
        lines.append(row(cells))
    lines += ["", *comparison(table)]
    if "MNIST" in set(table.dataset):
        lines += ["", "MNIST as published by others, on other machines, not measured here:", ""]
        lines += header(["network", "accuracy, %", "s a row"])
        lines += [
            row([name, str(accuracy or ""), str(seconds)]) for name, accuracy, seconds in PUBLISHED
        ]
    return "\n".join([*lines, ""])


def comparison(table: pd.DataFrame) -> list[str]:
    """How many times faster our kernels are than the compiled circuit and each peer's networks."""
    lines = header(
        [
            "data set",
            "our network",
            "accuracy, %",
            "s a row",
            "times as fast as compiled",
            "TenSEAL of as many neurons, %",
            "times as fast",
            "Concrete-ML's default, %",
            "times as fast",
            "its fastest tuned within 1 point below ours, %",
            "times as fast",
        ]
    )
    for dataset, group in table.groupby("dataset", sort=False):
        peers = group[~group.model.isin(OURS)]
        tuned = peers[peers.model.str.startswith("Concrete-ML, 2")]
        for _, own in group[group.model.isin(OURS)].iterrows():
            n_neurons = OURS[own.model][0].get("module__n_hidden_neurons")
            cells = [dataset, own.model, f"{100 * own.clear_accuracy:.1f}", f"{own.seconds:.4f}"]
            cells.append(f"{own.compiled / own.seconds:.2f}")
            for rivals in (
                peers[peers.model == f"TenSEAL, {n_neurons} neurons"],
                peers[peers.model == PEER_DEFAULT],
                tuned[tuned.clear_accuracy >= own.clear_accuracy - 0.01],
            ):
                if rivals.empty:
                    cells += ["none", ""]
                    continue
                best = rivals.loc[rivals.seconds.idxmin()]
                cells.append(f"{100 * best.clear_accuracy:.1f} ({best.seconds:.3f} s)")
                cells.append(f"{best.seconds / own.seconds:.1f}")
            lines.append(row(cells))
    return lines


def plot(table: pd.DataFrame, path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(table.dataset.unique())
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.6 * len(names), 3.8), squeeze=False, layout="constrained"
    )
    libraries = {"cipherlearn": "o", "Concrete-ML": "s", "TenSEAL": "^"}
    for ax, name in zip(axes[0], names, strict=True):
        group = table[table.dataset == name]
        for library, marker in libraries.items():
            rows = group[group.model.str.startswith(library)]
            if len(rows):
                ax.scatter(rows.seconds, 100 * rows.clear_accuracy, marker=marker, label=library)
        ax.set(xscale="log", title=name, xlabel="seconds an encrypted row")
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy, %")
    axes[0, 0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--concrete-ml", help="Python that has Concrete-ML")
    parser.add_argument("--tenseal", help="Python that has TenSEAL")
    parser.add_argument("--rows", type=int, default=30, help="encrypted rows per network")
    parser.add_argument("--peer-default-rows", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=15, help="calls that are timed")
    parser.add_argument("--datasets", nargs="*", choices=list(DATASETS), default=list(DATASETS))
    parser.add_argument("--mnist", type=Path, help="file of MNIST")
    parser.add_argument("--models", nargs="*", help="names of networks, instead of all")
    arguments = parser.parse_args()

    csv = arguments.output / "latency.csv"
    records = pd.read_csv(csv).to_dict("records") if csv.exists() else []
    done = {(record["dataset"], record["model"]) for record in records}
    for dataset, model, measure in measurements(arguments):
        if (dataset, model) in done or model not in (arguments.models or [model]):
            continue
        result = measure()
        records.append({"dataset": dataset, "model": model, **result})
        print(f"{dataset}: {model}: {result['seconds']:.3f} s, {result['clear_accuracy']:.3f}")
        sys.stdout.flush()
        pd.DataFrame(records).to_csv(csv, index=False)
    order = [*DATASETS, "MNIST"]
    table = pd.DataFrame(records).sort_values(
        "dataset", key=lambda names: names.map(order.index), kind="stable"
    )
    (arguments.output / "latency.md").write_text(to_markdown(table))
    plot(table, arguments.output / "latency.png")
    print(to_markdown(table))


if __name__ == "__main__":
    main()
