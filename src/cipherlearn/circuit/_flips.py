"""Measurement of how often approximate rounding changes a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cipherlearn.circuit._row_batches import RowBatches
from cipherlearn.engines import load_engine
from cipherlearn.engines._options import CompileOptions
from cipherlearn.program._passes import unsigned
from cipherlearn.program._program import IntegerProgram

__all__ = ["measure_flips"]

_N_ROWS = 1000

# A simulated call takes as long for one row as for many.
_BATCH_SIZE = 50


def measure_flips(
    program: IntegerProgram, options: CompileOptions, verbose: bool | int = False
) -> float:
    """Return the share of 1000 random rows whose simulated result differs from the clear one.

    Parameters
    ----------
    program : IntegerProgram
    options : CompileOptions
        Options that its circuit is compiled with.
    verbose : bool or int, default=False
        Whether to show a progress bar.
    """
    removes_bits = any(node.lsbs_to_remove for node in program.lookups)
    if options.rounding == "exact" or not removes_bits:
        return 0.0
    if options.global_p_error is None:
        options = replace(options, batch_size=max(options.batch_size, _BATCH_SIZE))
    compiled = load_engine().compile_program(program, options)
    codes = program.quantizer.random_codes(_N_ROWS, np.random.default_rng(0))
    batches = RowBatches(program, codes, options.batch_size)
    sums = ((i, compiled.simulate(batches[i])) for i in range(len(batches)))
    simulated = batches.collect(sums, "Measuring flips", verbose)
    return float((simulated != unsigned(program).run(codes)).any(axis=1).mean())
