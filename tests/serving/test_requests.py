"""Requests to a server: what is read, what is refused and why, and what is answered."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from scaleport.errors import ImageError, ScaleError, ScaleportError, UsageError
from scaleport.serving.tensors import Limits, Tensor, read_request, write_answer

PIXELS = np.random.default_rng(4).integers(0, 256, (5, 7, 3), np.uint8)
IMAGE = Tensor("image", "UINT8", (5, 7, 3), PIXELS.ravel().tolist())
TWO = Tensor("scale", "FP32", (1,), [2])


def encoded(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_numbers_and_files_are_read() -> None:
    wanted = read_request([IMAGE, Tensor("scale", "FP32", (2,), [2.7, 3])], Limits())
    assert np.array_equal(wanted.image, PIXELS)
    assert wanted.scale == (2.7, 3.0)  # 2.7 itself, not its nearest float32
    assert (wanted.size, wanted.file) == (None, False)

    planes = np.random.default_rng(4).random((2, 3, 4, 6), np.float32)
    tensor = Tensor("image", "FP32", planes.shape, planes.ravel().tolist())
    wanted = read_request([tensor, Tensor("size", "INT64", (2,), [9, 13])], Limits())
    assert np.array_equal(wanted.image, planes)
    assert (wanted.size, wanted.scale) == ((9, 13), None)

    wanted = read_request([Tensor("image", "BYTES", (1,), [encoded(PIXELS)]), TWO], Limits())
    assert np.array_equal(wanted.image, PIXELS)
    answer = write_answer(PIXELS, wanted)
    assert answer.datatype == "BYTES"
    file = io.BytesIO(base64.b64decode(answer.data[0]))
    assert np.array_equal(np.asarray(Image.open(file)), PIXELS)


@pytest.mark.parametrize(
    ("tensors", "kind", "reason"),
    [
        ([TWO], UsageError, "'image' is missing"),
        ([IMAGE], UsageError, "either 'scale' or 'size'"),
        ([IMAGE, TWO, Tensor("size", "INT64", (2,), [9, 9])], UsageError, "either"),
        ([IMAGE, IMAGE, TWO], UsageError, "given twice"),
        ([IMAGE, TWO, Tensor("x", "FP32", (1,), [1])], UsageError, "unknown input 'x'"),
        ([Tensor("image", "INT64", (5, 7, 3), [0] * 105), TWO], UsageError, "got INT64"),
        ([Tensor("image", "UINT8", (5, 7, 4), [0] * 140), TWO], UsageError, r"\[5, 7, 4\]"),
        ([Tensor("image", "UINT8", (5, 7, 3), [0] * 104), TWO], UsageError, "not 105 numbers"),
        ([Tensor("image", "UINT8", (1, 1, 3), [0, 0, 256]), TWO], UsageError, "UINT8"),
        ([Tensor("image", "UINT8", (1, 1, 3), [0, 0, -1]), TWO], UsageError, "UINT8"),
        ([Tensor("image", "UINT8", (1, 1, 3), [0, 0, 0.5]), TWO], UsageError, "UINT8"),
        ([Tensor("image", "UINT8", (1, 1, 3), ["a", "b", "c"]), TWO], UsageError, "UINT8"),
        ([Tensor("image", "UINT8", (1, 1, 3), [[0], [0, 0]]), TWO], UsageError, "UINT8"),
        ([Tensor("image", "UINT8", (0, 7, 3), []), TWO], UsageError, r"\[0, 7, 3\]"),
        ([Tensor("image", "FP32", (1, 3, 1, 1), [0, 0, 1e999]), TWO], ImageError, "infinity"),
        ([Tensor("image", "BYTES", (1,), ["***"]), TWO], ImageError, "in base64"),
        ([Tensor("image", "BYTES", (1,), ["bm8="]), TWO], ImageError, "the image is"),
        ([Tensor("image", "BYTES", (2,), ["a", "b"]), TWO], UsageError, "one file"),
        ([IMAGE, Tensor("scale", "FP32", (1,), [0])], ScaleError, "above 0"),
        ([IMAGE, Tensor("scale", "FP32", (1,), [float("nan")])], ScaleError, "finite"),
        ([IMAGE, Tensor("scale", "FP32", (3,), [1, 1, 1])], UsageError, r"\[3\]"),
        ([IMAGE, Tensor("scale", "FP32", (1,), [1e6])], ScaleError, "smaller"),
        ([IMAGE, Tensor("size", "INT64", (2,), [0, 9])], ScaleError, "at least 1x1"),
        ([IMAGE, Tensor("size", "INT64", (2,), [1 << 20, 1 << 20])], ScaleError, "limit"),
    ],
)
def test_a_wrong_request_is_refused_with_its_reason(
    tensors: list[Tensor], kind: type[ScaleportError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        read_request(tensors, Limits())


def test_large_images_are_refused_before_they_are_decoded() -> None:
    limits = Limits(input_pixels=30)
    for tensor in (IMAGE, Tensor("image", "BYTES", (1,), [encoded(PIXELS)])):
        with pytest.raises(ImageError, match="limit of 30 pixels"):
            read_request([tensor, TWO], limits)
