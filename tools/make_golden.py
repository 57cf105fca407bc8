"""Make the golden tile of ``scaleport doctor``: a tiny bundle and what PyTorch makes of a picture.

``python tools/make_golden.py`` rewrites ``scaleport/golden``. The network's weights are random;
it is there to be computed, not to be looked at.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import torch

from scaleport.bundle.reader import read_manifest
from scaleport.bundle.writer import BundleWriter
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.grid import Grid
from scaleport.models import load_checkpoint, save_checkpoint
from scaleport.models.network import build_network
from scaleport.validation.selftest import BUNDLE, EXPECTED, GOLDEN, SCALE, golden_image

NETWORK = {
    "encoder": {"name": "edsr", "width": 4, "blocks": 1},
    "upsampler": {"name": "liif", "hidden": [8, 8]},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.9},
    "scale": {"min": 1.0, "max": 4.0},
}


def main() -> None:
    """Export the network without its whole graphs, and compute the expected output."""
    torch.manual_seed(11)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, made = Path(scratch) / "golden.safetensors", Path(scratch) / "made.bundle"
        save_checkpoint(build_network(NETWORK).eval(), checkpoint)
        options = ExportOptions(("onnx", "openvino", "coreml"), ("fp32",))
        export_bundle(checkpoint, made, options)
        manifest = read_manifest(made)
        stages = {
            form: tuple(graph for graph in graphs if not graph.stage.startswith("whole"))
            for form, graphs in manifest.graphs.items()
        }
        GOLDEN.mkdir(exist_ok=True)
        with BundleWriter(GOLDEN / BUNDLE, overwrite=True) as writer:
            for relpath in manifest.files:
                if "/whole" not in relpath:
                    shutil.copyfile(made / relpath, writer.path(relpath))
            writer.finish(msgspec.structs.replace(manifest, graphs=stages, files={}))
        image = golden_image()
        grid = Grid.from_scale(image.shape[2], image.shape[3], SCALE)
        with torch.inference_mode():
            expected = load_checkpoint(checkpoint)(torch.from_numpy(image), grid).numpy()
    np.save(GOLDEN / EXPECTED, expected, allow_pickle=False)


if __name__ == "__main__":
    main()
