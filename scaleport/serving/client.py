"""A client of the KServe v2 protocol, with numpy and the standard library alone.

::

    client = Client("http://localhost:8080")
    larger = client.upscale(image, scale=2.7)      # uint8 [H, W, 3]
    client.upscale_file("photo.jpg", "large.png", scale=(2, 3.5))
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import BackendError, UsageError
from scaleport.grid import parse_scale


class Client:
    """A model on a server.

    Args:
        address: of the server, such as ``http://localhost:8080``.
        model: name of the model; empty takes the only one of ``scaleport serve``.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, address: str, model: str = "scaleport", timeout: float = 300) -> None:
        self._address = f"{address.rstrip('/')}/v2"
        self._model = model
        self._timeout = timeout

    def ready(self) -> bool:
        """Whether the server is up and has loaded the model."""
        try:
            self._call(f"models/{self._model}/ready")
        except (BackendError, UsageError):
            return False
        return True

    def metadata(self) -> dict[str, Any]:
        """What the server says of the model: its inputs and outputs."""
        found: dict[str, Any] = self._call(f"models/{self._model}")
        return found

    def upscale(
        self,
        image: Array,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Array:
        """Upscale uint8 [H, W, 3] or float32 [N, 3, H, W] in [0, 1]; the result is alike.

        Raises:
            UsageError: if the server refuses the request; the message is its reason.
            BackendError: if it cannot be reached, or failed.
        """
        datatype = "UINT8" if image.dtype == np.uint8 else "FP32"
        tensor = _tensor("image", datatype, list(image.shape), image.ravel().tolist())
        output = self.infer([tensor, *_asked(scale, size)])
        dtype = np.uint8 if output["datatype"] == "UINT8" else np.float32
        values: Array = np.array(output["data"], dtype).reshape(output["shape"])
        return values

    def upscale_file(
        self,
        source: Path | str,
        target: Path | str,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Send an image file and write the PNG file of the answer; errors as of :meth:`upscale`."""
        text = base64.b64encode(Path(source).read_bytes()).decode()
        output = self.infer([_tensor("image", "BYTES", [1], [text]), *_asked(scale, size)])
        Path(target).write_bytes(base64.b64decode(output["data"][0]))

    def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Send tensors and return the first output; errors as of :meth:`upscale`."""
        answer = self._call(f"models/{self._model}/infer", {"inputs": inputs})
        output: dict[str, Any] = answer["outputs"][0]
        return output

    def _call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._address}/{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            reason = _reason(error.read())
            kind = UsageError if error.code < 500 else BackendError
            raise kind(f"the server answered {error.code}: {reason}") from error
        except OSError as error:
            raise BackendError(f"no answer from {self._address}: {error}") from error
        return json.loads(content) if content else None


def _asked(
    scale: float | Iterable[float] | None, size: tuple[int, int] | None
) -> list[dict[str, Any]]:
    if (scale is None) == (size is None):
        raise UsageError("give either scale or size")
    if size is not None:
        return [_tensor("size", "INT64", [2], [int(n) for n in size])]
    assert scale is not None
    return [_tensor("scale", "FP32", [2], list(parse_scale(scale)))]


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _reason(content: bytes) -> str:
    try:
        found = json.loads(content)
        return str(found.get("error") or found.get("detail") or found)
    except (ValueError, AttributeError):
        return content.decode(errors="replace")[:500]
