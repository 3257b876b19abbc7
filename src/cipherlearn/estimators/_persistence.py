"""A fitted estimator as plain values and arrays, for formats that execute nothing when loaded.

skorch keeps its trained parts as a pickle in bytes, which skops would store, and unpickle, unseen.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from skorch.history import History

from cipherlearn.circuit._circuit import Circuit
from cipherlearn.estimators._modules import module_state, restore_module
from cipherlearn.estimators._skorch import SkorchNet
from cipherlearn.program._file import load_program, save_program

__all__ = ["plain_state", "restore"]

# Made of the parameters again. The optimizer's moments and the callbacks' memories do not travel.
_MADE_AGAIN = {
    "callbacks_",
    "criterion_",
    "init_context_",
    "initialized_",
    "optimizer_",
    "phase_",
    "virtual_params_",
}


def plain_state(net: SkorchNet) -> dict[str, Any]:
    """Describe an estimator without objects of torch or skorch, but for types among parameters."""
    state = {name: value for name, value in vars(net).items() if name not in _MADE_AGAIN}
    if "module_" in state:
        state["module_"] = module_state(net.module_)
        state["history_"] = list(net.history)
    if "program_" in state:
        file = io.BytesIO()
        save_program(net.program_, file)
        state["program_"] = file.getvalue()
    if "circuit_" in state:
        state["circuit_"] = net.circuit_.arguments
    return state


def restore(net: SkorchNet, state: dict[str, Any]) -> None:
    """Give a new estimator what :func:`plain_state` described."""
    state = dict(state)
    trained = {
        name: state.pop(name)
        for name in ("module_", "history_", "program_", "circuit_")
        if name in state
    }
    net.__dict__.update(state)
    net._choose_available_device()
    if "module_" in trained:
        # Initial weights are drawn and then replaced: leave the global generator alone.
        with torch.random.fork_rng(devices=[]):
            net.initialize()
        net.module_ = restore_module(net.module_, trained["module_"]).to(net.device)
        net.initialize_optimizer()
        net.history_ = History(trained["history_"])
    if "program_" in trained:
        net.program_ = load_program(io.BytesIO(trained["program_"]))
    if "circuit_" in trained:
        net.circuit_ = Circuit(net.program_, **trained["circuit_"])
