"""Compilation of a program to a circuit, without keys."""

from __future__ import annotations

import itertools
import shutil
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from cipherlearn.engines import compilation_error
from cipherlearn.engines._bindings import compiler  # isort: split

from concrete import fhe
from concrete.fhe.extensions.tag import tag_context

from cipherlearn.engines._compilation import compilation
from cipherlearn.engines._options import CompileOptions
from cipherlearn.engines._tracing import add_up, name_inputs, prepare_thread
from cipherlearn.program._layer import IntegerLayer
from cipherlearn.program._nodes import Lookup, Sum
from cipherlearn.program._passes import unsigned
from cipherlearn.program._program import IntegerProgram
from cipherlearn.program._values import IntArray

__all__ = ["compile_circuit", "remove_with"]

# Imported before Concrete's front end, whose warning and exit handler it takes away.
assert compiler

# Larger than any bit-width, so that clipping never starts.
_NEVER = 64


def compile_circuit(program: IntegerProgram, options: CompileOptions) -> fhe.Circuit:
    """Compile a program for a fixed number of rows per call.

    Parameters
    ----------
    program : IntegerProgram
    options : CompileOptions

    Raises
    ------
    CompilationError
        If the compiler finds no cryptographic parameters.
    """
    prepare_thread(tag_context)
    configuration = fhe.Configuration(
        **options.error_probability,
        compress_evaluation_keys=True,
        compress_input_ciphertexts=True,
        # Sums are proven to round to no more than the kept bits hold.
        approximate_rounding_config=fhe.ApproximateRoundingConfig(
            logical_clipping=False, approximate_clipping_start_precision=_NEVER
        ),
        # The default writes the model's weights into the working directory.
        dump_artifacts_on_unexpected_failures=False,
    )
    form = unsigned(program)
    evaluate = _evaluator(form, fhe.Exactness(options.rounding))
    corners = [
        tuple(np.repeat(codes[None], options.batch_size, axis=0) for codes in corner)
        for corner in _corners(form)
    ]
    encrypted = name_inputs(evaluate, len(form.inputs))
    try:
        with compilation():
            circuit = fhe.Compiler(evaluate, encrypted).compile(corners, configuration)
    except RuntimeError as error:
        raise compilation_error(program, options, error) from error
    remove_with(circuit.server)
    return circuit


def remove_with(server: fhe.Server) -> None:
    """Remove a circuit's folder with it, since Concrete's ``cleanup`` does nothing."""
    folder = server._library.get_output_dir_path()
    weakref.finalize(server, shutil.rmtree, folder, ignore_errors=True)


def _evaluator(program: IntegerProgram, exactness: fhe.Exactness) -> Callable[..., Any]:
    """Write an unsigned program's nodes in Concrete's tracing language, with proven widths."""
    tables = {node.reads: _lookup_table(program.layer_of(node.reads)) for node in program.lookups}

    def evaluate(**inputs: Any) -> Any:
        values = list(inputs.values())
        for node in program.nodes:
            if isinstance(node, Sum):
                layer = program.layer_of(len(values))
                n_bits = layer.n_table_bits + layer.lsbs_to_remove
                values.append(fhe.hint(add_up(node, values), bit_width=n_bits))
                continue
            layer, sums = program.layer_of(node.reads), values[node.reads]
            if node.lsbs_to_remove:
                sums = fhe.round_bit_pattern(
                    sums, node.lsbs_to_remove, overflow_protection=False, exactness=exactness
                )
            values.append(fhe.hint(tables[node.reads][sums], bit_width=layer.output_bits))
        outputs = tuple(values[v] for v in program.outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    return evaluate


def _lookup_table(layer: IntegerLayer) -> fhe.LookupTable:
    """One table per neuron, of a common power of two of entries."""
    rows = np.repeat(layer.cell_tables, 2**layer.lsbs_to_remove, axis=1)
    return fhe.LookupTable(np.array([fhe.LookupTable(row.tolist()) for row in rows]))


def _corners(program: IntegerProgram) -> list[list[IntArray]]:
    """List inputs that drive each sum of them to both ends of its range.

    The compiler measures ranges on them. Deeper sums have theirs from the hints.
    """
    ends = program.ranges[: len(program.inputs)]
    corners = [[low for low, _ in ends], [high for _, high in ends]]
    for node in program.nodes:
        if isinstance(node, Lookup) or max(node.reads) >= len(ends):
            continue
        parts = node.parts(len(ends[v][0]) for v in node.reads)
        for sign, row in itertools.product((1, -1), range(node.n_neurons)):
            corner = list(corners[0])
            for v, part in zip(node.reads, parts, strict=True):
                low, high = ends[v]
                corner[v] = np.where(sign * part[row] > 0, high, low)
            corners.append(corner)
    return corners
