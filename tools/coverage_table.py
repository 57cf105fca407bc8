"""The table of :mod:`tools.coverage`, in Markdown."""

from __future__ import annotations

from scaleport.models.compositions import COMPOSITIONS
from scaleport.runtimes.base import title_of
from scaleport.runtimes.registry import get_backend
from tools.coverage import BACKENDS, COLUMNS, PRECISIONS, Cell, Row, parts
from tools.coverage_static import StaticRow, columns, static_names

_HEAD = """# Coverage

Made by `python -m tools.coverage`; do not edit it.

Each network is exported in a small version with every part of the full one (windows keep their
published sizes) and with random weights. Every graph is compared with PyTorch in fp32: odd sizes,
sizes on a rounding tie, one batch of two images, scales that no export traced. fp32 passes within
1e-4 and above 80 dB, fp16 above 55 dB. Core ML programs are evaluated operation by operation in
NumPy, without Apple's runtime. TensorRT engines are built, and run only where their GPU is there.

A cell lists integer scales, real scales and tiles, in this order. A figure is the smallest PSNR in
dB of its comparisons, `=` means bit-equal, `built` means that engines were built, and a letter
refers to a reason below. **FAIL** marks a comparison that failed.
"""

_STATIC_HEAD = """## Fixed shapes

Made by `python -m tools.coverage --static`: each network exported with
[one shape](export.md#fixed-shapes), in every format, and compared with PyTorch in fp32 over the
quick parity grid, with the same bounds. The grid has that shape; smaller pictures where a network
takes them exactly; larger ones in tiles where tiles are exact; and the graphs from an image to its
pixels. Names of [shipped weights](weights.md) are the networks as they are, the others small
versions with random weights as above. A cell is the smallest PSNR in dB of all comparisons. A
network without a row has not been measured with fixed shapes.
"""


def table(rows: dict[str, Row], static: dict[str, StaticRow]) -> str:
    """The whole document."""
    reasons: dict[str, str] = {}
    columns = [(backend, precision) for backend in BACKENDS for precision in PRECISIONS]
    lines = [
        _HEAD,
        "| network | " + " | ".join(f"{title_of(get_backend(b))} {p}" for b, p in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in COMPOSITIONS:
        if name in rows:
            cells = [_text(rows[name], b, p, reasons) for b, p in columns]
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    lines += [*_reasons(reasons), "", _covered(rows)]
    if static:
        lines += ["", _static(static)]
    return "\n".join([*lines, ""])


def _static(rows: dict[str, StaticRow]) -> str:
    """The part on graphs of fixed shape."""
    reasons: dict[str, str] = {}
    heads = [f"{title_of(get_backend(b))} {p}" for b, p in columns()]
    lines = [
        _STATIC_HEAD,
        "| network | shape | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for name in static_names():
        if name in rows:
            row = rows[name]
            shape = "x".join(map(str, row.shape)) if row.shape[0] else "none"
            cells = [_word(row.cells[f"{b}/{p}"], reasons) for b, p in columns()]
            lines.append(f"| `{name}` | {shape} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_reasons(reasons)])


def _reasons(reasons: dict[str, str]) -> list[str]:
    """What the letters of a table stand for."""
    if not reasons:
        return []
    return ["", "Reasons:", "", *(f"- {letter}: {reason}" for reason, letter in reasons.items())]


def _text(row: Row, backend: str, precision: str, reasons: dict[str, str]) -> str:
    found = [row.cells[f"{backend}/{precision}/{column}"] for column in COLUMNS]
    words = [_word(cell, reasons) for cell in found]
    return words[0] if len(set(words)) == 1 and found[0].status == "n/a" else " / ".join(words)


def _word(cell: Cell, reasons: dict[str, str]) -> str:
    if cell.status == "pass":
        return "=" if cell.worst is None else f"{cell.worst:.0f}"
    if cell.status == "built":
        return "built"
    letter = reasons.setdefault(cell.reason, _letter(len(reasons)))
    return f"**FAIL** {letter}" if cell.status == "fail" else letter


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26) * (1 + index // 26)


def _covered(rows: dict[str, Row]) -> str:
    """How the networks without a row of their own are covered."""
    encoders: dict[str, str] = {}
    upsamplers: dict[str, str] = {}
    for name in COMPOSITIONS:
        if name in rows:
            encoder, upsampler = parts(name)
            encoders.setdefault(encoder, name)
            upsamplers.setdefault(upsampler, name)
    lines = [
        "An encoder and an upsampler are separate graphs with a float32 border, so a network",
        "without a row of its own is covered by the rows of its parts.",
        "",
        "| network | encoder as in | upsampler as in |",
        "|---|---|---|",
    ]
    for name in COMPOSITIONS:
        if name not in rows:
            encoder, upsampler = parts(name)
            first, second = encoders.get(encoder, "none"), upsamplers.get(upsampler, "none")
            lines.append(f"| `{name}` | `{first}` | `{second}` |")
    return "\n".join(lines)
