"""Scaleport as a model class of MLServer, a server of the KServe v2 protocol.

``scaleport serve-config --to kserve`` writes a model repository that names this class.
"""

from __future__ import annotations

import asyncio
from typing import Any

import mlserver
import numpy as np
from mlserver.errors import InferenceError, MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.utils import get_model_uri

from scaleport.errors import BackendError, ImageError, ScaleError, ScaleportError, UsageError
from scaleport.runtimes.upscaler import Upscaler, load
from scaleport.serving.tensors import Limits, Tensor, read_request, write_answer

_PIXELS = "scaleport_output_pixels"


class ScaleportModel(mlserver.MLModel):  # type: ignore[misc]
    """Upscales images with a bundle; ``parameters.extra`` holds backend, threads and limits."""

    _upscaler: Upscaler

    async def load(self) -> bool:
        """Open the bundle and run a small image, so that the first request does not wait."""
        bundle = await get_model_uri(self._settings)
        parameters = self._settings.parameters
        extra: dict[str, Any] = dict((parameters and parameters.extra) or {})
        self._limits = Limits(**extra.pop("limits", {}))
        self._upscaler = load(bundle, **extra)
        scale = min(2.0, self._upscaler.manifest.scale.max)
        self._upscaler(np.zeros((16, 16, 3), np.uint8), scale)
        # A worker runs one request at a time: a view and its sessions are for one thread.
        self._alone = asyncio.Lock()
        mlserver.register(_PIXELS, "Pixels of upscaled images that were answered")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request: 400 with the reason for a wrong one, 500 where a backend fails."""
        async with self._alone:
            # In a thread, so that the server answers health checks meanwhile.
            try:
                answer = await asyncio.to_thread(self._answer, payload)
            except (UsageError, ImageError, ScaleError) as error:
                raise InferenceError(str(error)) from None
            except (ScaleportError, MemoryError) as error:
                status = 500 if isinstance(error, BackendError) else 400
                raise MLServerError(str(error) or "out of memory", status) from None
        mlserver.log(**{_PIXELS: int(np.prod(answer.size))})
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[answer.output],
        )

    def _answer(self, payload: InferenceRequest) -> _Answer:
        tensors = [
            Tensor(
                i.name,
                str(getattr(i.datatype, "value", i.datatype)),
                tuple(i.shape),
                _plain(i.data),
            )
            for i in payload.inputs
        ]
        wanted = read_request(tensors, self._limits)
        result = self._upscaler(wanted.image, wanted.scale, wanted.size)
        tensor = write_answer(result, wanted)
        data = tensor.data.ravel().tolist() if isinstance(tensor.data, np.ndarray) else tensor.data
        parameters = {"content_type": "base64"} if wanted.file else None
        shape = list(tensor.shape)
        output = ResponseOutput(
            name=tensor.name,
            shape=shape,
            datatype=tensor.datatype,
            parameters=parameters,
            data=data,
        )
        size = result.shape[2:] if result.ndim == 4 else result.shape[:2]
        return _Answer(output, size)


class _Answer:
    def __init__(self, output: ResponseOutput, size: tuple[int, ...]) -> None:
        self.output = output
        self.size = size


def _plain(data: Any) -> Any:
    """The list inside of MLServer's own type."""
    found = getattr(data, "root", data)
    return np.asarray(found) if isinstance(found, np.ndarray) else _flat(found)


def _flat(values: Any) -> list[Any]:
    # Tensors may be nested lists in JSON; their shape says what they are.
    if not isinstance(values, list):
        return [values]
    if values and isinstance(values[0], list):
        return [inner for value in values for inner in _flat(value)]
    return values
