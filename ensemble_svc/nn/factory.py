"""The user's own network, imported by name and tried once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ensemble_svc.errors import Fault, SpecError, did_you_mean
from ensemble_svc.spec.model import PythonModel

NUM_TRIAL_ROWS = 2


def build_python(model: PythonModel, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Call the factory and try what it returns on two rows of zeros, in evaluation mode.

    Raises:
        SpecError: a factory that cannot be imported or called, or a network of other shapes.
    """
    factory = _find(model.factory)
    try:
        inspect.signature(factory).bind(input_shape, num_outputs, **model.options)
    except TypeError as mismatch:
        call = "it is called as factory(input_shape, num_outputs, **options)"
        _refuse("model.options", f"'{model.factory}' does not take these: {mismatch}; {call}.", mismatch)
    net = factory(input_shape, num_outputs, **model.options)
    if not isinstance(net, nn.Module):
        _refuse(
            "model.factory", f"'{model.factory}' returned {type(net).__name__}; it must be a torch.nn.Module."
        )
    if names := _twice(net):
        words = f"the network of '{model.factory}' has one layer under two names, {names[0]} and {names[1]}"
        _refuse("model.factory", f"{words}; keep one and call it twice, or give two layers one weight.")
    found = _output_shape(model.factory, net, input_shape)
    if found != [NUM_TRIAL_ROWS, num_outputs]:
        wanted = f"[{NUM_TRIAL_ROWS}, {num_outputs}]"
        shapes = f"maps {[NUM_TRIAL_ROWS, *input_shape]} to {found}, but {wanted} is needed"
        _refuse("model.factory", f"the network of '{model.factory}' {shapes}.")
    return net


def _twice(net: nn.Module) -> tuple[str, str] | None:
    """Names of one layer with weights; ``functional_call`` would not lead it back to its own weights."""
    first = dict[nn.Module, str]()
    for name, module in net.named_modules(remove_duplicate=False):
        if (module._parameters or module._buffers) and first.setdefault(module, name) != name:
            return first[module], name
    return None


def _find(name: str) -> Callable[..., Any]:
    module_name, function_name = name.split(":")
    try:
        module = import_module(module_name)
    except ImportError as missing:
        where = "It is looked for in the job's working directory and among the installed packages."
        _refuse("model.factory", f"'{module_name}' cannot be imported: {missing}. {where}", missing)
    factory = getattr(module, function_name, None)
    if not callable(factory):
        what = "has no function" if factory is None else "has, but not as a function,"
        hint = did_you_mean(function_name, [n for n, value in vars(module).items() if callable(value)])
        _refuse("model.factory", f"'{module_name}' {what} '{function_name}'.{hint}")
    return factory


def _output_shape(name: str, net: nn.Module, input_shape: tuple[int, ...]) -> list[int]:
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            outputs = net(torch.zeros(NUM_TRIAL_ROWS, *input_shape))
    except RuntimeError as failed:
        rows = [NUM_TRIAL_ROWS, *input_shape]
        _refuse(
            "model.factory", f"the network of '{name}' fails on an input of shape {rows}: {failed}", failed
        )
    for module, training in modes.items():
        module.training = training
    if not isinstance(outputs, Tensor):
        _refuse(
            "model.factory",
            f"the network of '{name}' returns {type(outputs).__name__}; it must return a tensor.",
        )
    return list(outputs.shape)


def _refuse(path: str, found: str, cause: BaseException | None = None) -> NoReturn:
    raise SpecError([Fault(path, found)]) from cause
