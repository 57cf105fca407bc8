"""What a shell offers for a half-typed word: names of models, checkpoints, backends and formats.

Where none of them begins so, the shell offers files. ``scaleport --install-completion`` sets it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


def _beginning(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Names that begin as a word does; of a list with commas, its last part is the word."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last)]

    return complete


def _models() -> Iterable[str]:
    from scaleport.export_cache import exported_bundles
    from scaleport.ready import ready_bundles

    return dict.fromkeys([*ready_bundles(), *exported_bundles()])


def _checkpoints() -> Iterable[str]:
    from scaleport.shipped import shipped_weights

    return shipped_weights()


def _backends() -> Iterable[str]:
    from scaleport.runtimes.registry import backend_names

    return ["auto", *backend_names()]


def _formats() -> Iterable[str]:
    from scaleport.export.formats import FORMATS

    return FORMATS


complete_model = _beginning(_models)
"""Of ``-m``, and of verbs that take a bundle."""
complete_checkpoint = _beginning(_checkpoints)
"""Of verbs that take a checkpoint."""
complete_backend = _beginning(_backends)
"""Of ``--backend``."""
complete_format = _beginning(_formats)
"""Of ``export --format``."""
complete_precision = _beginning(lambda: ("fp32", "fp16", "int8"))
"""Of ``--precision``."""
