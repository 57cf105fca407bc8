"""What a manifest lists, grouped for reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scaleport.bundle.manifest import Manifest, Parity, QuantisationLoss
from scaleport.cli.output import table


def graph_groups(manifest: Manifest) -> list[dict[str, Any]]:
    """One entry per format and precision: stages, files with sizes, bytes in all."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for name, graphs in manifest.graphs.items():
        for graph in graphs:
            group = groups.setdefault(
                (name, graph.precision), {"stages": {}, "folders": set(), "float32": set()}
            )
            group["stages"][graph.stage] = None
            group["folders"].add(graph.path.rpartition("/")[0])
            group["float32"].add(graph.float32_nodes)
    found = []
    for (name, precision), group in groups.items():
        # Weights lie beside the graphs that they belong to.
        files = {
            path: entry.bytes
            for path, entry in manifest.files.items()
            if any(path.startswith(f"{folder}/") for folder in group["folders"])
        }
        found.append(
            {
                "format": name,
                "precision": precision,
                "stages": list(group["stages"]),
                "float32_parts": sorted(group["float32"] - {""}),
                "files": files,
                "bytes": sum(files.values()),
            }
        )
    return found


def parity_groups(parity: Parity) -> list[dict[str, Any]]:
    """One entry per backend and precisions: cases, how many passed, and the worst figures.

    ``remark`` says where a stand-in computed the graphs and not the backend itself.
    """
    from scaleport.validation.parity.gates import evaluated

    remarks = evaluated(parity)
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for case in parity.results:
        group = groups.setdefault(
            (case.backend, case.precision, case.inference_precision),
            {"cases": 0, "passed": 0, "max_abs": None, "psnr": None},
        )
        group["cases"] += 1
        group["passed"] += case.passed
        if case.max_abs is not None:
            group["max_abs"] = max(case.max_abs, group["max_abs"] or 0.0)
        if case.psnr is not None:
            worst = group["psnr"]
            group["psnr"] = case.psnr if worst is None else min(worst, case.psnr)
    return [
        {
            "backend": name,
            "precision": precision,
            "inference_precision": other,
            **group,
            "remark": remarks.get(name, ""),
        }
        for (name, precision, other), group in groups.items()
    ]


def loss_table(losses: Sequence[QuantisationLoss]) -> list[str]:
    """Lines of what int8 costs per backend and scale, PSNR in dB."""
    rows = [
        (
            loss.backend,
            f"x{loss.scale:g}",
            f"{loss.fp32:.2f}",
            f"{loss.int8:.2f}",
            f"{loss.fp32 - loss.int8:+.3f}",
        )
        for loss in losses
    ]
    heads = ("backend", "scale", "fp32 dB", "int8 dB", "loss dB")
    return table([heads, *rows], numbers=slice(1, None))


def scale_text(manifest: Manifest) -> str:
    """The declared scales in words."""
    low, high, native = manifest.scale.min, manifest.scale.max, manifest.scale.native
    text = f"x{low:g} to x{high:g} per axis"
    if native:
        shown = ", ".join(f"x{scale}" for scale in native)
        return f"{text}; rendered at {shown} and reduced in between"
    return f"{text}, any real number"


def model_text(config: dict[str, Any]) -> str:
    """Encoder and upsampler with their options, in one line."""
    parts = []
    for role in ("encoder", "upsampler"):
        options = config.get(role)
        if not isinstance(options, dict):
            continue
        words = {k: f"({len(v)})" if isinstance(v, dict) else v for k, v in options.items()}
        given = ", ".join(f"{k}={v}" for k, v in words.items() if k != "name")
        name = options.get("name", "?")
        parts.append(f"{name}({given})" if given else str(name))
    return " + ".join(parts)
