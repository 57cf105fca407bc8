"""Write the first inputs of every target: a few small, valid files of each kind.

Usage: ``python fuzz/make_corpus.py FOLDER`` makes ``FOLDER/manifest`` and so on.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import sys
import tempfile
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

PARTS = [
    ({"name": "edsr", "width": 4, "blocks": 1}, {"name": "liif", "hidden": [4, 4]}),
    ({"name": "edsr", "width": 4, "blocks": 1}, {"name": "igconv", "latent": 4, "scales": [2, 3]}),
    ({"name": "edsr", "width": 4, "blocks": 1}, {"name": "spconv", "scale": 2}),
    ({"name": "edsr", "width": 4, "blocks": 1}, {"name": "metasr", "hidden": 4}),
    (
        {"name": "rcan", "width": 8, "groups": 1, "blocks": 1, "reduction": 4},
        {"name": "liif", "hidden": [4]},
    ),
    ({"name": "rdn", "width": 4, "growth": 4, "blocks": 1, "layers": 1}, {"name": "liif"}),
    ({"name": "swinir"}, {"name": "liif"}),
]


def manifests() -> dict[str, bytes]:
    """A manifest with every field, and one with the least."""
    from scaleport.bundle import manifest as m

    empty = m.FileEntry(sha256=hashlib.sha256(b"").hexdigest(), bytes=0)
    size = m.SizeRange(min=1, opt=64, max=4096)
    tensor = m.Tensor(name="image", dtype="float32", shape=("N", 3, "H", "W"))

    def graph(stage: str) -> m.Graph:
        path = f"onnx/fp32/{stage}.onnx"
        return m.Graph(
            path=path, stage=stage, precision="fp32", inputs=(tensor,), outputs=(tensor,)
        )

    graphs = (graph("encode"), graph("render"))
    least: dict[str, Any] = {
        "format_version": m.FORMAT_VERSION,
        "name": "tiny",
        "family": "query",
        "model": {"encoder": {"name": "edsr"}, "upsampler": {"name": "liif"}},
        "parameters": 12,
        "scale": m.ScaleRange(min=1.0, max=8.0),
        "size_rule": "round-half-up",
        "height": size,
        "width": size,
        "receptive_field": 3,
        "tiling": "exact",
        "graphs": {"onnx": graphs},
        "files": dict.fromkeys(("model.safetensors", *(g.path for g in graphs)), empty),
        "tool_versions": {"scaleport": "0"},
    }
    result = m.ParityResult(
        backend="torch",
        precision="fp32",
        shape=(3, 4),
        shape_name="odd",
        scale=(2.0, 3.0),
        mode="whole",
        max_abs=0.0,
        psnr=None,
        passed=True,
    )
    most = {
        "skipped": {"coreml": "why"},
        "license": "MIT",
        "parity": m.Parity(
            gates={"fp32": {"psnr": 80.0}}, device={}, tool_versions={}, results=(result,)
        ),
    }
    return {
        "least": m.encode(m.Manifest(**least)),
        "most": m.encode(m.Manifest(**{**least, **most})),
    }


def checkpoints() -> dict[str, bytes]:
    """Tiny networks of several kinds in the form that ``fuzz_checkpoint`` takes."""
    from scaleport.errors import UsageError
    from scaleport.models.checkpoint import save_checkpoint
    from scaleport.models.network import build_network

    made = {}
    for number, (encoder, upsampler) in enumerate(PARTS):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.safetensors"
            try:
                save_checkpoint(build_network({"encoder": encoder, "upsampler": upsampler}), path)
            except UsageError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            data = path.read_bytes()
        if len(data) > 300_000:
            continue
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header["__metadata__"]["scaleport"] = json.loads(header["__metadata__"]["scaleport"])
        made[f"{encoder['name']}-{upsampler['name']}-{number}"] = (
            json.dumps(header).encode() + b"\0" + bytes(len(data) - 8 - length)
        )
    return made


def images() -> dict[str, bytes]:
    """One small picture of each kind that is read."""
    made = {}
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 4), np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "PPM", "BMP"):
        for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"):
            image = PIL.Image.fromarray(pixels)
            if mode == "I;16":
                image = PIL.Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
            elif mode in ("P", "1", "CMYK"):
                image = image.convert("RGB").convert(mode)
            else:
                image = image.convert(mode)
            buffer = io.BytesIO()
            try:
                image.save(buffer, kind, **({"exif": exif} if mode == "RGB" else {}))
            except (OSError, ValueError, KeyError):
                continue
            made[f"{kind}-{mode.replace(';', '')}".lower()] = buffer.getvalue()
    for name, options in {
        "tiff-deflate": {"compression": "tiff_adobe_deflate"},
        "tiff-lzw": {"compression": "tiff_lzw"},
        "tiff-packbits": {"compression": "packbits"},
        "tiff-jpeg": {"compression": "jpeg"},
        "tiff-big": {"big_tiff": True},
    }.items():
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels[..., :3]).save(buffer, "TIFF", **options)
        made[name] = buffer.getvalue()
    deep = (pixels[..., :3].astype(np.uint16) * 257).byteswap().tobytes()
    made["ppm-16"] = b"P6\n9 7\n65535\n" + deep
    made["ppm-plain"] = b"P3 1 2 9\n0 1 2 # dark\n9 8 7\n"
    made["ppm-bits"] = b"P1\n3 2\n010 101\n"
    made["ppm-pam"] = (
        b"P7\nWIDTH 9\nHEIGHT 7\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
        + pixels.tobytes()
    )
    made["ppm-float"] = b"PF\n1 1\n-1.0\n" + struct.pack("<3f", 0, 0.5, 1)
    return made


def images_of(kind: str) -> dict[str, bytes]:
    """Those of one kind."""
    return {name: data for name, data in images().items() if name.startswith(kind)}


def choices() -> dict[str, bytes]:
    """Streams of choices, for targets that make their input from them."""
    rng = np.random.default_rng(1)
    return {f"choices-{i}": rng.bytes(64 << (i % 5)) for i in range(40)}


VIDEOS = {
    "mp4": ("clip.mp4", "mpeg4", "yuv420p"),
    "h264": ("clip.mov", "libx264", "yuv420p"),
    "mkv": ("clip.mkv", "ffv1", "yuva420p"),
    "webm": ("clip.webm", "libvpx", "yuv420p"),
    "avi": ("clip.avi", "mjpeg", "yuvj420p"),
    "mpg": ("clip.mpg", "mpeg1video", "yuv420p"),
    "ts": ("clip.ts", "mpeg2video", "yuv420p"),
    "alpha": ("clip.mov", "qtrle", "argb"),
}


def videos() -> dict[str, bytes]:
    """Clips of three small frames in every container, with a sound, tags and a display matrix."""
    import av

    made = {}
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    for name, (file, codec, form) in VIDEOS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file
            try:
                _clip(av, path, codec, form, pixels)
            except (av.FFmpegError, ValueError) as error:
                print(f"left out: {name}: {error}", file=sys.stderr)
                continue
            made[name] = path.read_bytes()
    return made


def _clip(av: Any, path: Path, codec: str, form: str, pixels: np.ndarray) -> None:
    rich = path.suffix in (".mp4", ".mov", ".mkv")
    with av.open(str(path), "w") as clip:
        clip.metadata["title"] = "A title"
        film = clip.add_stream(codec, rate=25)
        film.width, film.height, film.pix_fmt = 16, 16, form
        film.metadata["language"] = "deu"
        if rich:
            film.set_display_matrix((0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
            clip.set_chapters(
                [
                    {
                        "id": 1,
                        "start": 0,
                        "end": 80,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": "One"},
                    }
                ]
            )
        if path.suffix == ".mkv":
            cover = io.BytesIO()
            PIL.Image.fromarray(pixels[:4, :4]).save(cover, "PNG")
            clip.add_attachment("cover.png", "image/png", cover.getvalue())
            clip.add_attachment("a.ttf", "application/x-truetype-font", b"a font")
        sound = None
        if rich:
            sound = clip.add_stream("aac", rate=16000)
            sound.codec_context.layout = "mono"
            sound.metadata.update({"language": "fra", "title": "Sound"})
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels, number, 0), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            clip.mux(film.encode(frame))
        clip.mux(film.encode())
        if sound is not None:
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            wave.sample_rate, wave.pts = 16000, 0
            clip.mux(sound.encode(wave))
            clip.mux(sound.encode())


def graphs() -> dict[str, bytes]:
    """One small file of each kind, behind the byte that chooses the kind."""
    import onnx

    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])]
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [3], [0.0, 1.0, 2.0])
    outside = onnx.TensorProto(name="v", dims=[2], data_type=onnx.TensorProto.FLOAT)
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="encode.bin")
    branch = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["z"])], "b", [], [])
    nodes = [
        onnx.helper.make_node("Add", ["x", "w"], ["y"]),
        onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch),
        onnx.helper.make_node("F", ["x"], ["q"], domain="own"),
    ]
    function = onnx.helper.make_function("own", "F", ["a"], ["b"], [nodes[0]], [])
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, [weight, outside])
    model = onnx.helper.make_model(graph, functions=[function])
    ir = (
        b'<net name="m" version="11"><layers><layer id="0" name="w" type="Const" version="opset1">'
        b'<data element_type="f32" shape="3" offset="0" size="12"/><output><port id="0"/></output>'
        b'</layer><layer id="1" name="r" type="Result" version="opset1"/></layers><edges/></net>'
    )
    return {
        "onnx": b"\0" + model.SerializeToString(),
        "ir": b"\1" + ir,
        "record": b"\2" + _record(),
        "mil": b"\3" + _program(),
        "listing": b'\4{"itemInfoEntries":{"A":{"path":"com.apple.CoreML/model.mlmodel"}},'
        b'"rootModelIdentifier":"A"}',
    }


def _record() -> bytes:
    import msgspec

    from scaleport.runtimes.engine_record import EngineInfo, ShapeRange
    from scaleport.tensor import TensorSpec

    tensor = TensorSpec("x", "float32", ("N", 3))
    info = EngineInfo(
        library="tensorrt_rtx",
        version="1.0",
        compute_capabilities=("8.9",),
        onnx_sha256="0" * 64,
        engine_sha256=hashlib.sha256(b"engine").hexdigest(),
        bytes=6,
        build_seconds=1.0,
        inputs=(tensor,),
        outputs=(tensor,),
        profile={"x": ShapeRange(min=(1, 3), opt=(1, 3), max=(1, 3))},
        network_layers=1,
        precisions={"float32": 1},
    )
    return msgspec.json.encode(info)


def _program() -> bytes:
    import coremltools
    from coremltools.converters.mil import Builder

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 3))])
    def program(x: Any) -> Any:
        return Builder.add(x=Builder.relu(x=x), y=np.float32([[1, 2, 3]]))

    kept = coremltools.convert(
        program, convert_to="mlprogram", minimum_deployment_target=coremltools.target.iOS16
    )
    return bytes(kept.get_spec().SerializeToString())


def main(folder: Path) -> None:
    """Write everything."""
    kinds = {
        "manifest": manifests,
        "checkpoint": checkpoints,
        "image": images,
        "graphs": graphs,
        "video": videos,
        "pnm": partial(images_of, "ppm"),
        "damage": choices,
    }
    kinds |= {kind: partial(images_of, kind) for kind in ("tiff", "webp", "avif", "bmp")}
    for kind, make in kinds.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, data in make().items():
            (folder / kind / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
