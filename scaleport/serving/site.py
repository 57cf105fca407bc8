"""The static site with the demo page: its models, and a local server for it.

``python -m scaleport.serving.site FOLDER`` copies the shipped models into a folder; ``make web``
then adds the page.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from scaleport.bundle.reader import open_bundle
from scaleport.errors import UsageError
from scaleport.export.formats import ALWAYS
from scaleport.ready import READY
from scaleport.shipped import BUNDLE_SUFFIX

MODELS: Final = {
    "scaleport-any": "Any scale, up to ×8",
    "scaleport-s": "Small, up to ×4",
    "scaleport-m": "Larger, up to ×4",
}
"""Shipped models of the site and what the page calls them; the first is chosen at first."""

_TYPES: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}


def default_site() -> Path:
    """The folder that ``make web`` builds in this checkout."""
    return Path(__file__).parents[2] / "web" / "build" / "site"


def write_models(folder: Path, names: Iterable[str] = tuple(MODELS)) -> list[Path]:
    """Copy bundles of the package for the page, with the golden tile for its self-test.

    Args:
        folder: the folder of the site.
        names: names from :data:`MODELS`.

    Returns:
        The folders of the models, each a bundle without the files that the page never reads.

    Raises:
        UsageError: if the package has no such bundle.
    """
    names = list(names)
    made = [folder / "models" / f"{name}{BUNDLE_SUFFIX}" for name in names]
    for target in made:
        shutil.rmtree(target, ignore_errors=True)
        _copy_stages(READY / target.name, target)
    listed = [
        {"name": name, "title": MODELS[name], "bundle": f"models/{name}{BUNDLE_SUFFIX}"}
        for name in names
    ]
    (folder / "models" / "models.json").write_text(json.dumps(listed, indent=1))
    _write_golden(folder / "golden")
    return made


def _copy_stages(bundle: Path, target: Path) -> None:
    """Copy the manifest and the staged graphs in float32: all that the page reads."""
    graphs = open_bundle(bundle).graphs(ALWAYS, None, "fp32")
    paths = [graph.path for graph in graphs if not graph.stage.startswith("whole")]
    for path in [*paths, "manifest.json"]:  # the manifest last: it says that the rest is there
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / path, target / path)


def _write_golden(folder: Path) -> None:
    import numpy as np

    from scaleport.validation.selftest import BUNDLE, EXPECTED, GOLDEN

    _copy_stages(GOLDEN / BUNDLE, folder / BUNDLE)
    expected = np.load(GOLDEN / EXPECTED, allow_pickle=False)
    (folder / "expected.f32").write_bytes(np.ascontiguousarray(expected, "<f4").tobytes())


class SiteServer(ThreadingHTTPServer):
    """Serves a site to this machine, isolated, so that the page may use threads.

    Args:
        folder: the built site.
        port: TCP port on 127.0.0.1; 0 takes a free one.

    Raises:
        UsageError: if the folder holds no site, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        if not (folder / "index.html").is_file():
            raise UsageError(
                f"{folder} holds no site; build it with make web in a checkout of Scaleport"
            )
        try:
            super().__init__(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
        except OSError as error:
            raise UsageError(f"port {port} cannot be used ({error.strerror}); try --port 0") from (
                error
            )

    @property
    def address(self) -> str:
        """Where a browser finds the site; localhost counts as a secure place."""
        return f"http://localhost:{self.server_port}/"


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, **_TYPES}  # noqa: RUF012

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        # A site that was built again is seen at once.
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: requests are the browser's business."""


if __name__ == "__main__":
    write_models(Path(sys.argv[1]))
