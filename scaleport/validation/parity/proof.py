"""The parity proof: every graph of a bundle against the PyTorch network it was exported from."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from scaleport import __version__
from scaleport.aliases import Array
from scaleport.bundle.manifest import (
    WHOLE,
    Manifest,
    Parity,
    ParityResult,
    whole_name,
)
from scaleport.bundle.reader import Bundle, open_bundle, present_manifest, read_manifest
from scaleport.bundle.writer import update_manifest
from scaleport.errors import (
    ArtifactError,
    NotFiniteError,
    ScaleError,
    ScaleportError,
    one_line,
)
from scaleport.extras import needs
from scaleport.grid import Grid
from scaleport.progress import Progress, silent
from scaleport.runtimes.upscaler import BundleSource, Upscaler, load
from scaleport.runtimes.view import View
from scaleport.validation.metrics import max_abs, psnr
from scaleport.validation.parity.cases import (
    REFUSED,
    Case,
    Scale,
    Shape,
    policy_of,
    shapes_of,
)
from scaleport.validation.parity.combinations import Combination, Run, combinations_of, run_of
from scaleport.validation.parity.gates import NOT_RUN, Gates, judge, rejudge
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.overflow import locate
from scaleport.validation.pictures import picture

if TYPE_CHECKING:
    from scaleport.validation.parity.reference import Reference


def validate(
    bundle: Path | str | Bundle,
    options: ValidationOptions | None = None,
    progress: Progress | None = None,
) -> Parity:
    """Compare a bundle's graphs with the training-form network of its own checkpoint.

    A case that raises an error or returns NaN fails, and its ``note`` says why. A backend that
    cannot run here, or has no graphs in the bundle, has no cases; its entry in ``device`` says
    why it was not run.

    Args:
        bundle: the bundle directory, or the bundle if it is open already.
        options: which cases are run, and by which gates they are judged.
        progress: told of each case that is done, with its backend and precision.

    Returns:
        Measurements and verdicts.

    Raises:
        UsageError: if a name is unknown, or a requested backend or precision has no graphs.
        BackendError: if a requested backend cannot run here, or none can, or PyTorch is missing.
        ArtifactError: if the bundle or its checkpoint is damaged.
        OutputError: if the results cannot be stored.
    """
    # Here, because stored results are read and judged without torch too.
    with needs("torch", "the reference of validate"):
        from scaleport.validation.parity.reference import Reference

    options, progress = options or ValidationOptions(), progress or silent
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    combinations, left_out = combinations_of(
        opened,
        options.backends,
        options.precisions,
        options.selection,
        options.inference_precision,
    )
    reference = Reference(opened, options.threads)
    total = sum(combination.count for combination in combinations)
    results: list[ParityResult] = []
    device = dict(left_out)
    versions = {
        "scaleport": __version__,
        "python": platform.python_version(),
        **reference.versions,
    }
    for combination in combinations:
        name, precision = combination.backend, combination.precision
        upscaler = load(
            opened,
            name,
            precision,
            threads=options.threads,
            inference_precision=combination.inference_precision,
        )
        versions[name] = upscaler.stages.found.version
        for result in _run(upscaler, combination, reference):
            results.append(judge(result, options.gates))
            progress(len(results), total, combination.title)
        device[name] = device_of(upscaler)
    parity = Parity(
        gates=options.gates.limits([options.inference_precision]),
        device=device,
        tool_versions=versions,
        results=tuple(results),
    )
    if options.store:
        store(opened, opened.manifest, parity, options.gates, void_signature=True)
    return parity


def store(
    bundle: Path | str | Bundle,
    manifest: Manifest,
    parity: Parity,
    gates: Gates,
    void_signature: bool = False,
) -> Parity:
    """Store results in the manifest, in place of older ones of the same backend and precisions.

    Results of other backends, possibly made on another machine, stay and are judged by the same
    gates.

    Args:
        bundle: the bundle directory, or the bundle that was run; its manifest is then read again
            only if the file has changed since.
        manifest: its manifest as it was before the run.
        parity: what the run gave.
        gates: the gates it was judged by.
        void_signature: whether a signature may be removed, which these results make void.

    Returns:
        All results that are stored now.

    Raises:
        ArtifactError: if the bundle is damaged.
        OutputError: if it is signed and may not lose its signature, was exported anew since
            ``manifest`` was read, or cannot be written.
    """
    place = bundle if isinstance(bundle, Bundle) else Path(bundle)
    now = present_manifest(place) if isinstance(place, Bundle) else read_manifest(place)
    present = now.parity
    merged = parity if present is None else _merged(rejudge(present, gates), parity)
    update_manifest(place, msgspec.structs.replace(manifest, parity=merged), void_signature)
    return merged


def _merged(old: Parity, new: Parity) -> Parity:
    fresh = {run_of(result) for result in new.results}
    kept = tuple(result for result in old.results if run_of(result) not in fresh)
    device = dict(new.device)
    for name in {result.backend for result in kept}:
        if new.device.get(name, NOT_RUN).startswith(NOT_RUN):
            device[name] = old.device.get(name, "unknown")
    return msgspec.structs.replace(
        new,
        gates={**old.gates, **new.gates},
        device=device,
        tool_versions={**old.tool_versions, **new.tool_versions},
        results=kept + new.results,
    )


def device_of(upscaler: Upscaler) -> str:
    """What graphs really ran on, for a report."""
    try:
        return upscaler.device
    except ScaleportError as error:
        return f"none, graphs do not load: {note_of(error)}"


def _run(
    upscaler: Upscaler, combination: Combination, reference: Reference
) -> Iterator[ParityResult]:
    """Results of one backend and precision, measured and not judged yet."""
    for case, action in actions(upscaler, combination, reference.image):
        expected = reference.output(case.shape, case.scale)
        yield _measured(upscaler, combination, case, expected, action)
    yield from refusals(upscaler, combination)


def actions(
    upscaler: Upscaler, combination: Combination, image_of: Callable[[Shape], Array]
) -> Iterator[tuple[Case, Callable[[], Array]]]:
    """The cases of one backend and precision, each with what runs it."""
    # The cases of one shape and mode share a view, as an application would: encoded once.
    for (shape, mode), cases in groupby(combination.cases, key=lambda c: (c.shape, c.mode)):
        image = image_of(shape)
        view = View(upscaler.stages, image, policy_of(mode))
        for case in cases:

            def render(scale: Scale = case.scale, view: View = view) -> Array:
                return view.render(scale)

            def whole(scale: Scale = case.scale, image: Array = image) -> Array:
                return run_whole(upscaler, combination.whole, image, scale)

            yield case, whole if mode == "whole" else render


def run_whole(upscaler: Upscaler, stage: str, image: Array, scale: Scale) -> Array:
    """Run a whole graph, with nothing but the image and the scale or the size.

    Args:
        upscaler: whose bundle and backend to use.
        stage: ``whole``; ``whole_size``, which takes the size that the scale comes to; or, of
            graphs of fixed shape, what the name of the graph of the scale begins with.
        image: float32[N, 3, H, W] in [0, 1].
        scale: (scale_y, scale_x).

    Returns:
        float32[N, 3, Ho, Wo].

    Raises:
        BackendError: if the backend fails or returns NaN.
    """
    feeds = {"image": image}
    if stage == WHOLE:
        stage = whole_name(scale[0])
    elif stage == "whole":
        feeds["scale"] = np.array(scale, np.float32)
    else:
        grid = Grid.from_scale(image.shape[2], image.shape[3], scale)
        feeds["size"] = np.array(grid.output_size, np.int64)
    return upscaler.stages.run(stage, feeds)["upscaled"]


def _measured(
    upscaler: Upscaler,
    combination: Combination,
    case: Case,
    expected: Array,
    action: Callable[[], Array],
) -> ParityResult:
    found: Array | None = None
    note = ""
    try:
        found = action()
    except ArtifactError:
        # Not the backend's fault, and nothing that a further case could be right about.
        raise
    except NotFiniteError as error:
        note = note_of(error)
        source = upscaler.stages.source
        if isinstance(source, BundleSource):
            note += locate(source.bundle, combination.precision, error)
    except Exception as error:
        note = note_of(error)
    return measure(combination, case, found, expected, note)


def measure(
    run: Run, case: Case, found: Array | None, expected: Array, note: str = ""
) -> ParityResult:
    """The result of a case, not judged yet.

    Args:
        run: names the backend and the precisions.
        case: what was run.
        found: float32[N, 3, Ho, Wo]; None if there is no output.
        expected: the reference's.
        note: why there is no output.
    """
    worst: float | None = None
    ratio: float | None = None
    if found is not None:
        try:
            worst, ratio = max_abs(found, expected), psnr(found, expected)
        except ScaleportError as error:
            note = note_of(error)
    if worst is not None and not np.isfinite(worst):
        worst, note = None, "the output holds NaN or infinity"
    equal = worst == 0
    return ParityResult(
        backend=run.backend,
        precision=run.precision,
        inference_precision=run.inference_precision,
        shape=(case.shape.height, case.shape.width),
        shape_name=case.shape.name,
        scale=case.scale,
        mode=case.mode,
        max_abs=worst,
        psnr=None if worst is None or equal else ratio,
        passed=False,
        note=note,
    )


def refusals(upscaler: Upscaler, combination: Combination) -> Iterator[ParityResult]:
    """Whether scales outside the declared range are refused before anything runs."""
    # What is not refused is computed, so nothing larger than need be.
    smallest = min(shapes_of(upscaler.manifest), key=lambda shape: shape.height * shape.width)
    for scale in combination.refused:
        yield _refusal(upscaler, combination, smallest, scale)


def _refusal(
    upscaler: Upscaler, combination: Combination, shape: Shape, scale: Scale
) -> ParityResult:
    try:
        upscaler(picture(shape.height, shape.width), scale=scale)
        note = "outside the declared range, and not refused"
    except ScaleError:
        note = REFUSED
    except Exception as error:
        note = f"outside the declared range, and not refused as such: {note_of(error)}"
    return ParityResult(
        backend=combination.backend,
        precision=combination.precision,
        inference_precision=combination.inference_precision,
        shape=(shape.height, shape.width),
        shape_name=shape.name,
        scale=scale,
        mode="staged",
        max_abs=None,
        psnr=None,
        passed=note == REFUSED,
        note=note,
    )


def note_of(error: Exception) -> str:
    """An error as the note of a case."""
    text = one_line(error)
    return text if isinstance(error, ScaleportError) else f"{type(error).__name__}: {text}"
