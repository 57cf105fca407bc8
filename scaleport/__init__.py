"""Scaleport: arbitrary-scale super-resolution, one checkpoint on every runtime.

::

    import scaleport

    up = scaleport.load("photo.bundle")  # or backend="openvino", "tensorrt", ...
    hr = up(image, scale=2.7)

The names of this module are what programs use, and keep their meaning between minor versions;
modules below it are private but for those that ``docs/architecture.md`` lists. Nothing heavy is
imported before it is used: no torch, no backend.
"""

from __future__ import annotations

import sys as _sys
import typing as _typing
from importlib import import_module as _import_module

__version__ = "0.1.0"

if _typing.TYPE_CHECKING:
    from scaleport.batch.run import FilesOptions as FilesOptions
    from scaleport.batch.run import FilesRun as FilesRun
    from scaleport.batch.run import Report as Report
    from scaleport.batch.run import upscale_files as upscale_files
    from scaleport.batch.work import Outcome as Outcome
    from scaleport.benchmark.run import Benchmark as Benchmark
    from scaleport.benchmark.run import BenchOptions as BenchOptions
    from scaleport.benchmark.run import bench as bench
    from scaleport.bundle.manifest import Manifest as Manifest
    from scaleport.bundle.manifest import Parity as Parity
    from scaleport.bundle.manifest import ParityResult as ParityResult
    from scaleport.bundle.manifest import SizeRange as SizeRange
    from scaleport.bundle.reader import Bundle as Bundle
    from scaleport.bundle.reader import open_bundle as open_bundle
    from scaleport.calibration.images import Sampling as Sampling
    from scaleport.calibration.quantiser import CalibrationOptions as CalibrationOptions
    from scaleport.calibration.quantiser import OverBudget as OverBudget
    from scaleport.calibration.run import calibrate as calibrate
    from scaleport.errors import ArtifactError as ArtifactError
    from scaleport.errors import BackendError as BackendError
    from scaleport.errors import Cancelled as Cancelled
    from scaleport.errors import ExportError as ExportError
    from scaleport.errors import GateFailed as GateFailed
    from scaleport.errors import ImageError as ImageError
    from scaleport.errors import LintError as LintError
    from scaleport.errors import NotFiniteError as NotFiniteError
    from scaleport.errors import OutOfMemoryError as OutOfMemoryError
    from scaleport.errors import OutputError as OutputError
    from scaleport.errors import PartialError as PartialError
    from scaleport.errors import PluginError as PluginError
    from scaleport.errors import ScaleError as ScaleError
    from scaleport.errors import ScaleportError as ScaleportError
    from scaleport.errors import UnsupportedOpError as UnsupportedOpError
    from scaleport.errors import UsageError as UsageError
    from scaleport.evaluation.run import Evaluation as Evaluation
    from scaleport.evaluation.run import EvaluationOptions as EvaluationOptions
    from scaleport.evaluation.run import Score as Score
    from scaleport.evaluation.run import evaluate as evaluate
    from scaleport.export.exporter import export as export
    from scaleport.export.plan import ExportOptions as ExportOptions
    from scaleport.grid import Grid as Grid
    from scaleport.imaging.files import Image as Image
    from scaleport.imaging.files import load_image as load_image
    from scaleport.imaging.files import save_image as save_image
    from scaleport.imaging.given import ImageLike as ImageLike
    from scaleport.imaging.writing import SaveOptions as SaveOptions
    from scaleport.imaging.writing import VideoOptions as VideoOptions
    from scaleport.models.importers.convert import Conversion as Conversion
    from scaleport.models.importers.convert import ImportOptions as ImportOptions
    from scaleport.models.importers.convert import import_weights as import_weights
    from scaleport.progress import Cancellation as Cancellation
    from scaleport.progress import Progress as Progress
    from scaleport.ready import Model as Model
    from scaleport.ready import models as models
    from scaleport.runtimes.base import Availability as Availability
    from scaleport.runtimes.base import SessionOptions as SessionOptions
    from scaleport.runtimes.file import FileResult as FileResult
    from scaleport.runtimes.file import upscale_file as upscale_file
    from scaleport.runtimes.registry import backends as backends
    from scaleport.runtimes.scales import Fit as Fit
    from scaleport.runtimes.tiling import TilePolicy as TilePolicy
    from scaleport.runtimes.upscaler import Upscaler as Upscaler
    from scaleport.runtimes.upscaler import load as load
    from scaleport.runtimes.view import View as View
    from scaleport.training.command import TrainingOptions as TrainingOptions
    from scaleport.training.command import train as train
    from scaleport.training.result import TrainingResult as TrainingResult
    from scaleport.validation.bisection.bisect import bisect as bisect
    from scaleport.validation.bisection.options import Bisection as Bisection
    from scaleport.validation.bisection.options import BisectOptions as BisectOptions
    from scaleport.validation.doctor import Diagnosis as Diagnosis
    from scaleport.validation.doctor import doctor as doctor
    from scaleport.validation.parity.gates import Gate as Gate
    from scaleport.validation.parity.gates import Gates as Gates
    from scaleport.validation.parity.gates import passed as passed
    from scaleport.validation.parity.options import ValidationOptions as ValidationOptions
    from scaleport.validation.parity.proof import validate as validate
    from scaleport.validation.report.summary import render_table as render_table

_HOMES = {
    "scaleport.batch.run": (
        "FilesOptions",
        "FilesRun",
        "Report",
        "upscale_files",
    ),
    "scaleport.batch.work": ("Outcome",),
    "scaleport.benchmark.run": (
        "BenchOptions",
        "Benchmark",
        "bench",
    ),
    "scaleport.bundle.manifest": (
        "Manifest",
        "Parity",
        "ParityResult",
        "SizeRange",
    ),
    "scaleport.bundle.reader": (
        "Bundle",
        "open_bundle",
    ),
    "scaleport.calibration.images": ("Sampling",),
    "scaleport.calibration.quantiser": (
        "CalibrationOptions",
        "OverBudget",
    ),
    "scaleport.calibration.run": ("calibrate",),
    "scaleport.errors": (
        "ArtifactError",
        "BackendError",
        "Cancelled",
        "ExportError",
        "GateFailed",
        "ImageError",
        "LintError",
        "NotFiniteError",
        "OutOfMemoryError",
        "OutputError",
        "PartialError",
        "PluginError",
        "ScaleError",
        "ScaleportError",
        "UnsupportedOpError",
        "UsageError",
    ),
    "scaleport.evaluation.run": (
        "Evaluation",
        "EvaluationOptions",
        "Score",
        "evaluate",
    ),
    "scaleport.export.exporter": ("export",),
    "scaleport.export.plan": ("ExportOptions",),
    "scaleport.grid": ("Grid",),
    "scaleport.imaging.files": (
        "Image",
        "load_image",
        "save_image",
    ),
    "scaleport.imaging.given": ("ImageLike",),
    "scaleport.imaging.writing": (
        "SaveOptions",
        "VideoOptions",
    ),
    "scaleport.models.importers.convert": (
        "Conversion",
        "ImportOptions",
        "import_weights",
    ),
    "scaleport.progress": (
        "Cancellation",
        "Progress",
    ),
    "scaleport.ready": (
        "Model",
        "models",
    ),
    "scaleport.runtimes.base": (
        "Availability",
        "SessionOptions",
    ),
    "scaleport.runtimes.file": (
        "FileResult",
        "upscale_file",
    ),
    "scaleport.runtimes.scales": ("Fit",),
    "scaleport.runtimes.tiling": ("TilePolicy",),
    "scaleport.runtimes.registry": ("backends",),
    "scaleport.runtimes.upscaler": (
        "Upscaler",
        "load",
    ),
    "scaleport.runtimes.view": ("View",),
    "scaleport.training.command": (
        "TrainingOptions",
        "train",
    ),
    "scaleport.training.result": ("TrainingResult",),
    "scaleport.validation.bisection.bisect": ("bisect",),
    "scaleport.validation.bisection.options": (
        "BisectOptions",
        "Bisection",
    ),
    "scaleport.validation.doctor": (
        "Diagnosis",
        "doctor",
    ),
    "scaleport.validation.parity.gates": (
        "Gate",
        "Gates",
        "passed",
    ),
    "scaleport.validation.parity.options": ("ValidationOptions",),
    "scaleport.validation.parity.proof": ("validate",),
    "scaleport.validation.report.summary": ("render_table",),
}
"""Public names by the module that defines them."""
_EXTRAS = {
    "scaleport.calibration.quantiser": "export",
    "scaleport.calibration.run": "export",
    "scaleport.export.exporter": "export",
    "scaleport.export.plan": "export",
    "scaleport.models.importers.convert": "export",
    "scaleport.training.command": "train",
    "scaleport.validation.bisection.bisect": "export",
}
"""The pip extra of a module that cannot be imported with the runtime's own packages alone."""
_MODULE_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


if not _typing.TYPE_CHECKING:  # a name that is not there is then a type checker's error

    def __getattr__(name: str) -> _typing.Any:
        home = _MODULE_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'scaleport' has no attribute {name!r}")
        extra = _EXTRAS.get(home)
        if extra is None:
            value = getattr(_import_module(home), name)
        else:
            from scaleport.extras import needs

            with needs(extra, f"scaleport.{name}"):
                value = getattr(_import_module(home), name)
        # A package of the same name is callable, see scaleport.callables, and stays what it is.
        value = _sys.modules.get(f"scaleport.{name}", value)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)
