"""Made-up images and fast settings for calibration."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import torch

from scaleport.calibration.images import Sampling
from scaleport.imaging.files import Image, save_image
from scaleport.models import build_network, save_checkpoint
from scaleport.validation.pictures import picture

SAMPLING = Sampling(patches=6, side=16, held_out=2, held_side=64)


def write_images(folder: Path, count: int, height: int = 80, width: int = 72) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = picture(height + number % 3, width, seed=number)[0].transpose(1, 2, 0)
        save_image(folder / f"{number:03}.png", Image((pixels * 255).astype(np.uint8)))
    return folder


def write_fragile(path: Path) -> Path:
    """A network that copies the image, x1, beside channels a hundred times as large.

    In float32 it is exact. In int8 the two layers that handle both at once, ``encoder.head`` and
    the ``conv`` that renders, lose the image, and no other layer matters.
    """
    torch.manual_seed(4)
    config = {
        "encoder": {"name": "edsr", "width": 8, "blocks": 1},
        "upsampler": {"name": "spconv", "scale": 1},
        "scale": {"min": 1.0, "max": 1.0},
    }
    network = build_network(config).eval()
    colours = range(3)
    with torch.no_grad():
        encoder, last = network.encoder, network.upsampler.conv
        for layer in (encoder.head, encoder.tail, last):
            layer.bias.zero_()
        encoder.head.weight.mul_(100)
        for weight in (encoder.head.weight, last.weight):
            weight[:3] = 0
            for colour in colours:
                weight[colour, colour, 1, 1] = 1
        encoder.tail.weight[:3] = 0
    save_checkpoint(network, path)
    return path


def quantised_outputs(model: onnx.ModelProto) -> Collection[str]:
    """Output tensors of the products that read an int8 weight, for reports and tests."""
    small = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.INT8}
    weights = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in small
    }
    return [node.output[0] for node in model.graph.node if weights.intersection(node.input)]
