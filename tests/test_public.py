"""The public surface: what ``import scaleport`` promises, written down."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import scaleport

PACKAGE = Path(scaleport.__file__).parent

PUBLIC = [
    "ArtifactError",
    "Availability",
    "BackendError",
    "BenchOptions",
    "Benchmark",
    "BisectOptions",
    "Bisection",
    "Bundle",
    "CalibrationOptions",
    "Cancellation",
    "Cancelled",
    "Conversion",
    "Diagnosis",
    "Evaluation",
    "EvaluationOptions",
    "ExportError",
    "ExportOptions",
    "FileResult",
    "FilesOptions",
    "FilesRun",
    "Fit",
    "Gate",
    "GateFailed",
    "Gates",
    "Grid",
    "Image",
    "ImageError",
    "ImageLike",
    "ImportOptions",
    "LintError",
    "Manifest",
    "Model",
    "NotFiniteError",
    "OutOfMemoryError",
    "Outcome",
    "OutputError",
    "OverBudget",
    "Parity",
    "ParityResult",
    "PartialError",
    "PluginError",
    "Progress",
    "Report",
    "Sampling",
    "SaveOptions",
    "ScaleError",
    "ScaleportError",
    "Score",
    "SessionOptions",
    "SizeRange",
    "TilePolicy",
    "TrainingOptions",
    "TrainingResult",
    "UnsupportedOpError",
    "Upscaler",
    "UsageError",
    "ValidationOptions",
    "VideoOptions",
    "View",
    "__version__",
    "backends",
    "bench",
    "bisect",
    "calibrate",
    "doctor",
    "evaluate",
    "export",
    "import_weights",
    "load",
    "load_image",
    "models",
    "open_bundle",
    "passed",
    "render_table",
    "save_image",
    "train",
    "upscale_file",
    "upscale_files",
    "validate",
]
"""A name that comes is a promise; one that goes, or changes its meaning, is a new major version."""

ALIASES = ("ImageLike",)


def test_the_public_names_are_these_and_nothing_else_shows():
    assert dir(scaleport) == PUBLIC
    assert scaleport.__all__ == ["__version__", *(n for n in PUBLIC if n != "__version__")]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(name):
    value = getattr(scaleport, name)
    if name in ALIASES:
        return
    if inspect.isclass(value) or inspect.isroutine(value):
        assert value.__module__.startswith("scaleport.")
        assert value.__name__ == name
        assert value.__doc__
    if inspect.isroutine(value):
        missing = [
            parameter.name
            for parameter in inspect.signature(value).parameters.values()
            if parameter.annotation is parameter.empty
        ]
        assert not missing


def test_editors_see_the_names_that_programs_get():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (
        node for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "_typing.TYPE_CHECKING"
    )  # fmt: skip
    typed = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name  # what re-exports it for type checkers
            typed[alias.name] = node.module
    assert typed == {name: home for home, names in scaleport._HOMES.items() for name in names}


def test_what_no_one_was_promised_is_not_there():
    with pytest.raises(AttributeError, match="module 'scaleport' has no attribute 'uplaod'"):
        _ = scaleport.uplaod


def run(code: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, check=True, timeout=100)


ROOM_THEN_VERB = """
    import scaleport.export.formats
    import scaleport
    before = scaleport.export
"""
VERB_THEN_ROOM = """
    import scaleport
    before = scaleport.export
    import scaleport.export.formats
"""


@pytest.mark.parametrize("first", [ROOM_THEN_VERB, VERB_THEN_ROOM])
def test_a_verb_that_is_called_like_its_room_is_both_in_any_order(first):
    run(
        textwrap.dedent(first)
        + textwrap.dedent(
            """
            import inspect
            from scaleport import export
            from scaleport.export import exporter, formats
            import scaleport.export.plan as plan

            assert scaleport.export.formats is formats
            assert list(inspect.signature(export).parameters)[:2] == ["checkpoint", "target"]
            for verb in (before, scaleport.export, export, exporter.export):
                try:
                    verb("no-such-network")
                except scaleport.UsageError as error:
                    assert "there is no checkpoint no-such-network" in str(error)
                else:
                    raise AssertionError(verb)
            """
        )
    )


@pytest.mark.parametrize(
    ("name", "extra"),
    [("export", "export"), ("calibrate", "export"), ("bisect", "export"), ("train", "train")],
)
def test_a_missing_extra_is_named(name, extra):
    run(
        f"""
        import sys
        sys.modules["torch"] = None
        import scaleport
        try:
            scaleport.{name}
        except scaleport.BackendError as error:
            assert str(error) == (
                "scaleport.{name} needs torch, which is not installed: "
                "pip install 'scaleport[{extra}]'"
            )
        else:
            raise AssertionError
        """
    )
