"""What a million encrypted rows a day take: cores, the caller's time, and traffic.

    python benchmarks/capacity.py --output benchmarks/results

Needs ``dask[distributed]``. Breast cancer. The cost of a row on both runtimes is measured in
processes of one thread each, as many at a time as there are cores, as on a cluster.
The floor is the time of the bootstraps and keyswitches alone. Then predictions by two workers are
timed, first and again. Writes ``capacity.md``, and its tables as ``capacity.csv``,
``traffic.csv`` and ``throughput.csv``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import parallel_config
from joblib.externals.loky import get_reusable_executor
from report import (
    NETWORKS,
    RUNTIMES,
    encrypted_environment,
    floor_seconds,
    header,
    row,
    versions,
)
from sklearn.datasets import load_breast_cancer

from cipherlearn import NeuralNetClassifier
from cipherlearn.circuit._joblib import Evaluation, _Evaluator
from cipherlearn.engines._options import CompileOptions

BATCHES = (1, 8, 32)
MILLION, DAY = 1e6, 86_400.0
N_WORKERS = 2

# Seconds after which a circuit is not called again.
ENOUGH = 10.0


def fitted(name: str) -> tuple[NeuralNetClassifier, np.ndarray]:
    X, y = load_breast_cancer(return_X_y=True)
    return NeuralNetClassifier(random_state=0, **NETWORKS[name]).fit(X, y), X


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median of the process's CPU time, which a busy machine does not lengthen."""
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < ENOUGH:
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def cost(name: str, batch_size: int, runtime: str, repeats: int) -> dict[str, Any]:
    """Measure a batch as a worker evaluates it, and what the caller does for it."""
    clf, X = fitted(name)
    circuit = clf.compile(batch_size=batch_size, runtime=runtime)
    codes, program = clf.program_.quantize(X[:batch_size]), clf.program_
    ciphertexts, keys = circuit.encrypt(codes), circuit.evaluation_keys()
    files, options = circuit.files(), CompileOptions(**circuit.options)

    start = time.process_time()
    worker = _Evaluator(Evaluation(program, files, options, keys).data)
    results = worker.run(ciphertexts)  # the first call makes the keys ready
    set_up = time.process_time() - start
    np.testing.assert_array_equal(circuit.decrypt(results), program.run(codes))

    evaluation = median_seconds(lambda: worker.run(ciphertexts), repeats)
    encryption = median_seconds(lambda: circuit.encrypt(codes), 3 * repeats)
    decryption = median_seconds(lambda: circuit.decrypt(results), 3 * repeats)
    floor = floor_seconds(program, files["specs.json"], batch_size)
    return {
        "network": name,
        "runtime": runtime,
        "batch": batch_size,
        "core_seconds": evaluation / batch_size,
        "to_floor": evaluation / floor if floor else np.nan,
        "caller_seconds": (encryption + decryption) / batch_size,
        "bytes_in": sum(map(len, ciphertexts)) / batch_size,
        "bytes_out": sum(map(len, results)) / batch_size,
        "key_bytes": len(keys),
        "set_up_seconds": set_up - evaluation,
    }


def throughput(name: str, batch_size: int, n_rows: int) -> list[dict[str, Any]]:
    """Time predictions of this process, of joblib's processes, and of a cluster's workers."""
    from dask.distributed import Client, LocalCluster

    clf, X = fitted(name)
    circuit = clf.compile(batch_size=batch_size)
    clear = clf.predict(X[:n_rows])
    records = []

    def measure(how: str, n_jobs: int | None) -> None:
        circuit.keygen(force=True)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            labels = clf.predict(X[:n_rows], execute_in_fhe=True, n_jobs=n_jobs)
            seconds.append(time.perf_counter() - start)
            np.testing.assert_array_equal(labels, clear)
        records.append(
            {
                "network": name,
                "rows of a batch": batch_size,
                "evaluated by": how,
                "rows": n_rows,
                "first call, s": f"{seconds[0]:.1f}",
                "second call, s": f"{seconds[1]:.1f}",
                "rows a second": f"{n_rows / seconds[1]:.1f}",
                "labels equal": f"{np.mean(labels == clear):.0%}",
            }
        )

    measure(f"this process, {os.cpu_count()} threads", 1)
    measure(f"loky, n_jobs={N_WORKERS}", N_WORKERS)
    get_reusable_executor().shutdown()  # idle, they would keep this process from its end
    cluster = LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster), parallel_config(backend="dask"):
        measure(f"dask, {N_WORKERS} workers of 1 thread", None)
    return records


def capacity_table(costs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "network": costs.network,
            "runtime": costs.runtime,
            "rows of a batch": costs.batch,
            "core-seconds a row": costs.core_seconds.map("{:.4f}".format),
            "to the floor": costs.to_floor.map("{:.2f}".format).replace("nan", ""),
            "rows a second and core": (1 / costs.core_seconds).map("{:.2f}".format),
            "cores for a million rows a day": (MILLION * costs.core_seconds / DAY).map(
                "{:.2f}".format
            ),
            "caller, ms a row": (1e3 * costs.caller_seconds).map("{:.2f}".format),
            "caller, million rows a day": (DAY / costs.caller_seconds / MILLION).map(
                "{:.0f}".format
            ),
        }
    )


def traffic_table(costs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "network": costs.network,
            "runtime": costs.runtime,
            "rows of a batch": costs.batch,
            "in, kB a row": (costs.bytes_in / 1e3).map("{:.2f}".format),
            "out, kB a row": (costs.bytes_out / 1e3).map("{:.2f}".format),
            "a million rows, GB": ((costs.bytes_in + costs.bytes_out) * MILLION / 1e9).map(
                "{:.1f}".format
            ),
            "keys of a worker, MB": (costs.key_bytes / 1e6).map("{:.1f}".format),
            "set-up of a worker, s": costs.set_up_seconds.map("{:.1f}".format),
        }
    )


def to_markdown(table: pd.DataFrame) -> str:
    return "\n".join([*header(table.columns), *map(row, table.astype(str).to_numpy())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64, help="rows predicted by each backend")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--batches", nargs="*", type=int, default=BATCHES, help="rows of a batch")
    arguments = parser.parse_args()

    # Processes read it when they start. The longest go first.
    os.environ["OMP_NUM_THREADS"] = "1"
    tasks = [*product(arguments.networks, arguments.batches, RUNTIMES)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        waiting = [pool.submit(cost, *task, arguments.repeats) for task in tasks[::-1]]
        costs = pd.DataFrame([future.result() for future in waiting[::-1]])

    del os.environ["OMP_NUM_THREADS"]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        done = [
            pool.submit(throughput, "8 neurons, 4 bits", batch, arguments.rows).result()
            for batch in arguments.batches[:2]
        ]
    tables = {
        "capacity": capacity_table(costs),
        "traffic": traffic_table(costs),
        "throughput": pd.DataFrame([record for records in done for record in records]),
    }
    lines = [
        encrypted_environment(),
        f"{versions('joblib', 'dask')}. A row's costs are CPU time of processes of one thread, "
        f"{os.cpu_count()} of them at a time.",
    ]
    for name, table in tables.items():
        table.to_csv(arguments.output / f"{name}.csv", index=False)
        lines += ["", to_markdown(table)]
    (arguments.output / "capacity.md").write_text("\n".join([*lines, ""]))
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
