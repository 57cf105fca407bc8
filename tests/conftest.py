"""Small networks and their bundles, exported once for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TINY = {
    "liif": {"name": "liif", "hidden": [16, 16, 16]},
    "igconv": {"name": "igconv", "scales": [2, 3, 4], "latent": 16, "hidden_layers": 2},
}


def tiny_config(upsampler: str) -> dict:
    """Configuration of a network that exports in seconds; its halo is small."""
    return {
        "encoder": {"name": "edsr", "width": 8, "blocks": 2},
        "upsampler": TINY[upsampler],
        "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.9},
        "scale": {"min": 1.0, "max": 8.0},
    }


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    """Give the next test its threads back: ``--threads`` sets PyTorch's for the whole process."""
    loaded = sys.modules.get("torch")
    before = loaded.get_num_threads() if loaded else None
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        before = before or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache_of_tests(tmp_path_factory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache of exports out of every test, and every test out of it."""
    monkeypatch.setenv("SCALEPORT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def package_models() -> dict[str, Path]:
    """The bundles of the package by name, or a skip where they have not been made."""
    from scaleport.ready import PURPOSES, ready_bundles

    found = ready_bundles()
    if set(found) != set(PURPOSES):
        pytest.skip("the package holds no models: make models")
    return found


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Function from a name to what is made under it once, for all workers of one run."""
    from filelock import FileLock

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    root = root / "shared"
    root.mkdir(exist_ok=True)

    def get(name: str, make: Callable[[Path], object]) -> Path:
        path = root / name
        with FileLock(f"{path}.lock"):
            if not path.exists():
                make(path)
        return path

    return get


@pytest.fixture(scope="session")
def tiny_checkpoint(shared) -> Callable[[str], Path]:
    """Function from ``liif`` or ``igconv`` to a checkpoint with random weights."""
    from scaleport.models import save_checkpoint
    from scaleport.models.network import build_network

    torch = pytest.importorskip("torch")

    def get(name: str) -> Path:
        def make(path: Path) -> None:
            torch.manual_seed(7)
            save_checkpoint(build_network(tiny_config(name)).eval(), path)

        return shared(f"tiny-{name}.safetensors", make)

    return get


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint, shared) -> Callable[..., Path]:
    """Function from a name and formats to a bundle, fp32 and fp16. Read it, do not change it."""
    from scaleport.export.exporter import export_bundle
    from scaleport.export.plan import ExportOptions

    def get(name: str, *formats: str) -> Path:
        chosen = formats or ("onnx", "openvino")

        def make(path: Path) -> None:
            export_bundle(tiny_checkpoint(name), path, ExportOptions(formats=chosen))

        return shared(f"{name}-{'-'.join(chosen)}.bundle", make)

    return get


@pytest.fixture(scope="session")
def shipped_bundle(shared) -> Callable[[str], Path]:
    """Function from the name of a shipped model to its bundle in every format. Takes a minute."""
    from scaleport.export.exporter import export_bundle
    from scaleport.shipped import find_checkpoint

    def get(name: str) -> Path:
        return shared(f"{name}.bundle", lambda path: export_bundle(find_checkpoint(name), path))

    return get


@pytest.fixture(scope="session")
def torch_bundle(tmp_path_factory) -> Callable[..., Path]:
    """Function from a network to a bundle for the torch backend alone: nothing is lowered."""
    from scaleport.export.exporter import export_bundle
    from scaleport.export.plan import ExportOptions
    from scaleport.models import save_checkpoint

    def unlowered(plan):
        graphs = []
        for precision in plan.options.precisions:
            for stage in plan.stages(precision):
                path = f"onnx/{precision}/{stage.name}.onnx"
                # An ONNX file of one node, which no runtime loads.
                plan.place(path).write_bytes(b"\x08\x08\x3a\x0c\x0a\x0a\x22\x08Identity")
                graphs.append(plan.stage_entry(stage, precision, path))
        return graphs

    def make(network, **options) -> Path:
        root = tmp_path_factory.mktemp("torch")
        save_checkpoint(network.eval(), root / "network.safetensors")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("scaleport.export.onnx.write", unlowered)
            options = ExportOptions(formats=("onnx",), **options)
            export_bundle(root / "network.safetensors", root / "network.bundle", options)
        return root / "network.bundle"

    return make


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real images, or a skip that says how to give one."""
    value = os.environ.get("SCALEPORT_DATA", "")
    if not value or not Path(value).is_dir():
        pytest.skip("SCALEPORT_DATA does not name the image folder")
    return Path(value)
