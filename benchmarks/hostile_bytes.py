"""Whether loaders and clients read or refuse whatever bytes they are given, and nothing else.

    python benchmarks/hostile_bytes.py --output benchmarks/results

Needs ``cipherlearn[client,server]``. Reads mutants of every format, 5 000 each, in processes whose
death is noticed, by the readers of the tests. Writes ``hostile_bytes.md``, and fails if a mutant
does harm: raises what is no exception of cipherlearn, ends or stops its process, or takes a
gigabyte.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from report import environment, header, row
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

from cipherlearn import NeuralNetClassifier
from cipherlearn.deployment import export

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from hunt import FORMATS, hunt, write_originals


def originals(directory: Path) -> Path:
    """Export a linear model, and one with bootstraps and preprocessing."""
    X, y = load_iris(return_X_y=True)
    linear = NeuralNetClassifier(module__n_layers=1, random_state=0).fit(X, y)
    linear.compile(batch_size=2)
    export(linear, directory / "linear")
    steps = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), [0]),
        (SplineTransformer(), [1]),
        remainder=StandardScaler(),
    )
    net = NeuralNetClassifier(module__n_hidden_neurons=2, random_state=0)
    pipe = make_pipeline(steps, net).fit(X, y)
    pipe[-1].compile()
    export(pipe, directory / "bootstrapped")
    write_originals(directory / "originals", directory / "linear", directory / "bootstrapped")
    return directory / "originals"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--mutants", type=int, default=5000, help="of each format")
    parser.add_argument("--seed", type=int, default=1, help="the tests use 0")
    arguments = parser.parse_args()
    columns = ["format", "mutants", "read", "refused", "harm", "memory added, MB", "seconds"]
    lines = [
        environment("scikit-learn", "skops", "concrete-python", "numpy"),
        "",
        *header(columns),
    ]
    harm: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        directory = originals(Path(folder))
        for name in FORMATS:
            start = time.perf_counter()
            report = hunt(directory, name, arguments.mutants, arguments.seed)
            seconds = time.perf_counter() - start
            counts = (report.outcomes.total(), report.outcomes["read"], report.outcomes["refused"])
            cells = (*counts, len(report.harm), report.n_bytes // 10**6, f"{seconds:.0f}")
            lines.append(row([name, *map(str, cells)]))
            print(lines[-1], flush=True)
            harm += report.harm
    if harm:
        sys.exit("\n\n".join(harm))
    (arguments.output / "hostile_bytes.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
