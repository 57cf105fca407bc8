"""A stage as PyTorch operators: captured once, the source of every graph that is made of it.

Capturing with symbolic lengths costs more than all that follows, so it is done once per stage and
precision, and what exporters would do by capturing again is done on the program itself where its
operators allow it (:func:`scaleport.export.settle.settled`). That nothing of the traced lengths
stayed in it is shown by running it beside the stage at other lengths, operator by operator
(:func:`replays`).
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from scaleport.bundle.manifest import continued, split_dimension
from scaleport.errors import ExportError, first_line
from scaleport.grid import Grid, subpixel_centres
from scaleport.models.base import Stage
from scaleport.models.lengths import OWN_LENGTHS, exchange_symbols, own_symbols
from scaleport.tensor import TensorSpec


@dataclass(frozen=True)
class TraceSizes:
    """Sizes that a stage is traced with; nothing of them may remain in the graph.

    Heights and widths are beyond twice the largest window of any network (64): traced inside a
    single window, a graph would be fixed to one window. Nothing is computed at these sizes.
    """

    batch: int = 2
    height: int = 139
    width: int = 131
    out_height: int = 311
    out_width: int = 293
    scale: int = 3

    def length(self, name: str) -> int:
        """Length of a named dimension."""
        axis, window = split_dimension(name)
        lengths = {
            "N": self.batch,
            "H": self.height,
            "W": self.width,
            "Ho": self.out_height,
            "Wo": self.out_width,
            "S": self.scale,
        }
        return continued(lengths[axis], window)


SECOND_TRACE = TraceSizes(3, 167, 151, 353, 347, 5)
"""Sizes that share no length with the default ones, for the lint's second trace."""


REPLAY_SIZES = TraceSizes(3, 22, 30, 52, 62, 2)
"""Lengths at which a program is run beside its stage: none is a traced one, nor odd as they are."""


def example_inputs(stage: Stage, sizes: TraceSizes) -> tuple[Tensor, ...]:
    """One tensor per input port: a real grid where the port is part of one, else noise."""
    grid = Grid.from_size(sizes.height, sizes.width, sizes.out_height, sizes.out_width)
    known = {name: torch.from_numpy(value) for name, value in grid.feeds().items()}
    known["cell"] = torch.from_numpy(grid.cell)
    known["subpixel"] = torch.from_numpy(subpixel_centres(sizes.scale))
    known["kept_rows"] = torch.arange(sizes.height, dtype=torch.float32)
    known["kept_cols"] = torch.arange(sizes.width, dtype=torch.float32)
    known["rows"] = torch.arange(sizes.height, dtype=torch.int32).clamp(max=sizes.height - 4)
    known["cols"] = torch.arange(sizes.width, dtype=torch.int32).clamp(max=sizes.width - 3)
    generator = torch.Generator().manual_seed(0)

    def make(port: TensorSpec) -> Tensor:
        if port.name in known:
            return known[port.name]
        shape = [sizes.length(d) if isinstance(d, str) else d for d in port.shape]
        return torch.rand(shape, generator=generator)

    return tuple(make(port) for port in stage.inputs)


def dynamic_shapes(stage: Stage) -> tuple[Any, ...]:
    """Dynamic dimensions of every input, for ``torch.export`` and ``torch.onnx.export``.

    Both want those of a variable number of arguments, as in ``forward(feature, *grid)``, as one
    tuple.
    """
    dims: dict[str, Any] = {}
    result = []
    for port in stage.inputs:
        named = {i: d for i, d in enumerate(port.shape) if isinstance(d, str)}
        result.append({i: dims.setdefault(d, torch.export.Dim(d)) for i, d in named.items()})
    kinds = [p.kind for p in inspect.signature(stage.module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(result)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*result[:first], tuple(result[first:]))


@contextlib.contextmanager
def quiet(*more: str, level: int = logging.ERROR) -> Iterator[None]:
    """Silence exporters that print progress and warn about their own internals.

    Args:
        more: loggers that are silenced beside those of PyTorch's exporters.
        level: what is still logged.
    """
    names = ("torch.onnx", "torch.export", "onnxscript", *more)
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)


@contextlib.contextmanager
def swift() -> Iterator[None]:
    """Settings under which PyTorch captures and rewrites programs of symbolic lengths faster.

    Its cache of what operators return is keyed by lengths: symbolic ones hardly ever meet again,
    and filling it is half of the work. The same holds for garbage, of which there is little.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
            yield
    finally:
        if collecting:
            gc.enable()


def capture(stage: Stage, sizes: TraceSizes | None = None) -> torch.export.ExportedProgram:
    """Capture a stage with symbolic lengths, as it is, without rewriting any operator.

    Args:
        stage: what to capture; its module is switched to eval mode.
        sizes: lengths of the example tensors, the default ones if left out.

    Raises:
        ExportError: if it cannot be captured.
    """
    sizes = sizes or TraceSizes()
    # Code that asks how a length relates to others gets no answer about a mere symbol.
    if any(getattr(module, OWN_LENGTHS, False) for module in stage.module.modules()):
        # PyTorch prints the half of a program that it has before it refuses such a question.
        silent = contextlib.redirect_stderr(io.StringIO())
        with contextlib.suppress(Exception), own_symbols(), silent:
            program = _capture(stage, sizes)
            exchange_symbols(program.graph_module.graph)
            program.graph_module.recompile()
            return program
    try:
        return _capture(stage, sizes)
    except Exception as error:
        raise ExportError(f"stage {stage.name!r} cannot be traced: {first_line(error)}") from error


def _capture(stage: Stage, sizes: TraceSizes) -> torch.export.ExportedProgram:
    # Otherwise lengths of 1 would count as a case of their own, and be refused later.
    config: Any = torch.fx.experimental._config
    with quiet(), swift(), torch.no_grad(), config.patch(backed_size_oblivious=True):
        return torch.export.export(
            stage.module.eval(),
            example_inputs(stage, sizes),
            dynamic_shapes=dynamic_shapes(stage),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


_LAYOUT = tuple(
    f"aten.{name}"
    for name in ("lift_fresh", "detach", "alias", "clone", "_unsafe_view", "_reshape_copy")
)


class _Record(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps every operator that runs inside, with its numbers and what it made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[str, list[Any], list[torch.Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        leaves, _ = tree_flatten((args, kwargs or {}))
        made, _ = tree_flatten(result)
        numbers = [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]
        tensors = [value for value in made if isinstance(value, torch.Tensor)]
        # How memory is laid out may differ; what is made of it counts. Nor does it matter whether
        # an operator writes in place, which the name says by its last character.
        name = str(func).replace("_.", ".")
        if not (func.is_view or name.startswith(_LAYOUT)):
            self.calls.append((name, numbers, [tensor.clone() for tensor in tensors]))
        return result


def replays(program: torch.export.ExportedProgram, stage: Stage) -> bool:
    """Whether a program does what its stage does, at lengths that it was not captured at.

    Both run on the same tensors. They must call the same operators with the same numbers and get
    the same results, bit by bit: a number that came from a traced length would stand out, even
    where its effect on the output is small.
    """
    inputs = example_inputs(stage, REPLAY_SIZES)
    signature = program.graph_signature
    stored = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    own = (program.state_dict, program.constants)
    given = iter(inputs)
    arguments = []
    for spec in signature.input_specs:
        name = stored.get(getattr(spec.arg, "name", ""))
        holder = own[0] if name in own[0] else own[1]
        arguments.append(next(given) if name is None else holder[name])
    with torch.no_grad():
        with _Record() as wanted:
            stage.module(*inputs)
        with _Record() as found:
            program.graph_module(*arguments)
    return len(wanted.calls) == len(found.calls) and all(map(_same_call, wanted.calls, found.calls))


def _same_call(
    one: tuple[str, list[Any], list[torch.Tensor]], two: tuple[str, list[Any], list[torch.Tensor]]
) -> bool:
    (name, numbers, results), (other, others, made) = one, two
    return (
        name == other
        and numbers == others
        and len(results) == len(made)
        and all(
            a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
            for a, b in zip(results, made, strict=True)
        )
    )
