"""Graphs of one fixed shape: nothing in them is dynamic, and they upscale any picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from scaleport.bundle.reader import open_bundle, read_manifest  # noqa: E402
from scaleport.cli.main import main  # noqa: E402
from scaleport.errors import ScaleError, UsageError  # noqa: E402
from scaleport.export.exporter import export_bundle  # noqa: E402
from scaleport.export.plan import ExportOptions  # noqa: E402
from scaleport.export.static import StaticShape, dynamic_part  # noqa: E402
from scaleport.grid import Grid, in_longer  # noqa: E402
from scaleport.models import build_network, load_checkpoint, save_checkpoint  # noqa: E402
from scaleport.models.compositions import COMPOSITIONS  # noqa: E402
from scaleport.models.small_form import is_exact  # noqa: E402
from scaleport.runtimes.upscaler import Upscaler, load  # noqa: E402
from scaleport.validation.bisection.bisect import bisect  # noqa: E402
from scaleport.validation.parity.gates import passed  # noqa: E402
from scaleport.validation.parity.options import ValidationOptions  # noqa: E402
from scaleport.validation.parity.proof import validate  # noqa: E402
from scaleport.validation.pictures import pictures  # noqa: E402
from scaleport.validation.report.summary import describe, failures  # noqa: E402
from tools.coverage import random_network  # noqa: E402

HEIGHT, WIDTH = 40, 48
MORE = ((WIDTH, 56),)
"""A further size, which Core ML programs of the lattice network take."""
EVERY = ("onnx", "openvino", "coreml")
SHIPPED = ("scaleport-s", "scaleport-any", "scaleport-photo")


@pytest.fixture(scope="module")
def checkpoint_of(tiny_checkpoint: Any, shared: Any) -> Callable[[str], Path]:
    """Function from ``liif`` or ``igconv``, here with two native scales, to a checkpoint."""

    def two_scales(path: Path) -> None:
        config = load_checkpoint(tiny_checkpoint("igconv")).config
        upsampler = {**config["upsampler"], "scales": [2, 4]}
        torch.manual_seed(8)
        save_checkpoint(build_network({**config, "upsampler": upsampler}).eval(), path)

    def get(name: str) -> Path:
        if name == "igconv":
            return Path(shared("two-scales.safetensors", two_scales))
        return Path(tiny_checkpoint(name))

    return get


@pytest.fixture(scope="module")
def dynamic(checkpoint_of: Any, torch_bundle: Any) -> Callable[[str], Upscaler]:
    """Function from the same names to the network itself, which takes any shape."""

    @cache
    def get(name: str) -> Upscaler:
        return load(torch_bundle(load_checkpoint(checkpoint_of(name))), "torch", "fp32")

    return get


@pytest.fixture(scope="module")
def wanted(dynamic: Any) -> Callable[[str], dict[tuple[int, int, Any], Any]]:
    """Function from a name to what the network makes of pictures, by size and scale."""

    @cache
    def get(name: str) -> dict[tuple[int, int, Any], Any]:
        upscaler = dynamic(name)
        return {
            (height, width, scale): upscaler(pictures(height, width, 2), scale)
            for height, width in SIZES
            for scale in SCALES
        }

    return get


@pytest.fixture(scope="module")
def static_bundle(checkpoint_of: Any, shared: Any) -> Callable[..., Path]:
    """Function from ``liif`` or ``igconv`` and a scale to a bundle of fixed shape."""

    def get(name: str, scale: float | None = None) -> Path:
        def make(path: Path) -> None:
            options = ExportOptions(
                formats=EVERY if scale is None else ("onnx",),
                precisions=("fp32",),
                static=StaticShape(HEIGHT, WIDTH, scale, MORE if name == "igconv" else ()),
            )
            export_bundle(checkpoint_of(name), path, options)

        found: Path = shared(f"static-{name}-{scale}.bundle", make)
        return found

    return get


@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_no_dimension_is_dynamic(static_bundle: Any, name: str) -> None:
    bundle = open_bundle(static_bundle(name))
    assert bundle.manifest.fixed_size == (HEIGHT, WIDTH)
    for graphs in bundle.manifest.graphs.values():
        for graph in graphs:
            for tensor in (*graph.inputs, *graph.outputs):
                assert all(isinstance(size, int) for size in tensor.shape), (graph.stage, tensor)
    for graph in bundle.manifest.graphs["onnx"]:
        model = onnx.load(bundle.file(graph.path))
        assert dynamic_part(model) == ""
        declared = [tuple(t.shape) for t in (*graph.inputs, *graph.outputs)]
        real = [
            tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
            for v in (*model.graph.input, *model.graph.output)
        ]
        assert real == declared
        # Constants that only repeat a limit for every pixel would make graphs as large as pictures.
        largest = max(len(i.SerializeToString()) for i in model.graph.initializer)
        assert largest < 4 * HEIGHT * WIDTH * 9


@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_openvino_compiles_static_shapes(static_bundle: Any, name: str) -> None:
    openvino = pytest.importorskip("openvino")
    bundle = open_bundle(static_bundle(name))
    core = openvino.Core()
    for graph in bundle.manifest.graphs["openvino"]:
        model = core.read_model(bundle.file(graph.path))
        assert not model.is_dynamic()
        assert all(
            output.get_partial_shape().is_static
            for operation in model.get_ordered_ops()
            for output in operation.outputs()
        )
        core.compile_model(model, "CPU")


def test_core_ml_programs_take_one_shape(static_bundle: Any) -> None:
    from scaleport.mil import Evaluator, read_program

    bundle = open_bundle(static_bundle("liif"))
    for graph in bundle.manifest.graphs["coreml"]:
        evaluator = Evaluator(read_program(bundle.file(graph.path)))
        for tensor in (*evaluator.inputs, *evaluator.outputs):
            assert -1 not in tensor.shape


def test_core_ml_enumerates_sizes(static_bundle: Any, checkpoint_of: Any) -> None:
    import coremltools

    from scaleport.mil import Evaluator, read_program

    sizes = [(HEIGHT, WIDTH), *MORE]
    bundle, network = open_bundle(static_bundle("igconv")), load_checkpoint(checkpoint_of("igconv"))
    graphs = {graph.stage: graph for graph in bundle.manifest.graphs["coreml"]}
    for stage in ("encode", "whole_x2", "whole_x4"):
        assert graphs[stage].target == {"sizes": "48x40, 56x48"}
        path = bundle.file(graphs[stage].path)
        image = coremltools.utils.load_spec(str(path)).description.input[0].type.multiArrayType
        found = [tuple(shape.shape) for shape in image.enumeratedShapes.shapes]
        assert sorted(found) == sorted((1, 3, *size) for size in sizes)
    assert graphs["render_x2"].target == {}
    evaluator = Evaluator(read_program(bundle.file(graphs["whole_x2"].path)))
    for size in sizes:
        image = pictures(*size, 1)
        with torch.no_grad():
            want = network(torch.from_numpy(image), Grid.from_scale(*size, 2)).numpy()
        assert np.abs(evaluator.run({"image": image})["upscaled"] - want).max() <= 1e-4
    assert load(bundle, "coreml")(pictures(60, 70, 1), 2).shape == (1, 3, 120, 140)


SIZES = [(15, 21), (1, 1), (HEIGHT, 7), (3, WIDTH), (HEIGHT, WIDTH), (HEIGHT + 9, 33), (97, 85)]
SCALES = (1.3, 2, 2.7, (2.0, 3.5))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_any_picture_is_what_the_network_of_any_shape_makes_of_it(
    dynamic: Any, wanted: Any, static_bundle: Any, name: str, backend: str
) -> None:
    fixed = load(static_bundle(name), backend)
    for (height, width, scale), want in wanted(name).items():
        difference = np.abs(want - fixed(pictures(height, width, 2), scale)).max()
        assert difference <= 1e-5, (height, width, scale)
    region = (7, 5, 90, 120)
    image = pictures(70, 66, 1)
    want, got = (up.open(image).render(scale=2.7, region=region) for up in (dynamic(name), fixed))
    assert np.abs(want - got).max() <= 1e-5


def test_transparent_pictures(dynamic: Any, static_bundle: Any) -> None:
    # Alpha is rendered as a second image, and graphs take one.
    image = (pictures(50, 60, 1)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    image = np.dstack([image, image[..., :1]])
    fixed = load(static_bundle("liif"), "onnxruntime")
    want, got = dynamic("liif")(image, 2.7).astype(int), fixed(image, 2.7).astype(int)
    assert np.abs(want - got).max() <= 1


@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_parity(static_bundle: Any, name: str) -> None:
    parity = validate(static_bundle(name), ValidationOptions(selection="quick"))
    assert passed(parity), "\n".join(map(describe, failures(parity)))
    measured = {(r.backend, r.mode) for r in parity.results if r.max_abs is not None}
    for backend in ("onnxruntime", "openvino", "coreml", "torch"):
        assert {(backend, "staged"), (backend, "tiled")} <= measured
        assert ((backend, "whole") in measured) == (backend != "torch")
    shapes = {r.shape for r in parity.results if r.max_abs is not None}
    assert (HEIGHT, WIDTH) in shapes
    assert any(h < HEIGHT for h, _ in shapes)
    assert any(h > HEIGHT for h, _ in shapes)


def test_a_scale_is_the_only_native_one(static_bundle: Any) -> None:
    bundle = static_bundle("igconv", 2)
    manifest = read_manifest(bundle)
    assert manifest.scale.native == (2,)
    assert manifest.scale.max == 2
    stages = {graph.stage for graph in manifest.graphs["onnx"]}
    assert stages == {"encode", "encode_small", "render_x2", "render_x2_small", "whole_x2"}
    with pytest.raises(ScaleError):
        load(bundle, "onnxruntime")(pictures(9, 9, 1), 2.7)


def test_a_scale_is_the_block_of_a_query_network(static_bundle: Any, dynamic: Any) -> None:
    bundle = static_bundle("liif", 1.3)
    graphs = {graph.stage: graph for graph in read_manifest(bundle).graphs["onnx"]}
    assert graphs["render"].outputs[0].shape == (1, 3, 52, 62)
    assert graphs["whole_x1.3"].outputs[0].shape == (1, 3, 52, 62)
    image = pictures(33, 61, 1)
    want, got = dynamic("liif")(image, 3.37), load(bundle, "onnxruntime")(image, 3.37)
    assert np.abs(want - got).max() <= 1e-5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--static", "8x8"], "overlap by"),
        (["--static", "64by64"], "--static 1920x1080"),
        (["--scale", "2"], "--scale needs --static"),
        (["--static", "96x96", "--height", "64"], "leave out --height"),
        (["--static", "96x96", "--scale", "9"], "outside the range"),
    ],
)
def test_options_are_refused(
    tiny_checkpoint: Any, tmp_path: Path, capsys: Any, arguments: list[str], words: str
) -> None:
    target = tmp_path / "out.bundle"
    code = main(["export", str(tiny_checkpoint("liif")), "-o", str(target), *arguments])
    assert code == 2
    assert words in capsys.readouterr().err
    assert not target.exists()


def test_a_scale_that_is_not_native_is_refused(tiny_checkpoint: Any, tmp_path: Path) -> None:
    options = ExportOptions(static=StaticShape(64, 64, 2.5))
    with pytest.raises(UsageError, match="no native scale"):
        export_bundle(tiny_checkpoint("igconv"), tmp_path / "out.bundle", options)


def test_bisect_names_the_bundle_to_search_instead(static_bundle: Any) -> None:
    with pytest.raises(UsageError, match="without --static"):
        bisect(static_bundle("liif"))


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("edsr-baseline-x2", False),  # its tail is one convolution that mends the border
        ("edsr-baseline-liif", True),
        ("edsr-baseline-lte", True),
        ("edsr-baseline-igconv-plus", True),
        ("rcan-igconv", False),  # averages over the image
        ("smfanet-plus-x2", False),  # pools
    ],
)
def test_which_networks_take_smaller_pictures_exactly(name: str, exact: bool) -> None:
    form = random_network(name).deploy(torch.float64)
    decoder = None if form.bound else form.render
    assert is_exact(form.encode, tuple(form.bound.values()), decoder) is exact


def test_a_network_of_windows_is_exact_at_the_shape_only(tmp_path: Path) -> None:
    config = COMPOSITIONS["swinir-light-x2"].small
    torch.manual_seed(0)
    network = build_network({**config, "encoder": {**config["encoder"], "depths": [1]}})
    save_checkpoint(network.eval(), tmp_path / "net.safetensors")
    target = tmp_path / "net.bundle"
    with pytest.raises(UsageError, match="not a multiple of 8"):
        export_bundle(
            tmp_path / "net.safetensors", target, ExportOptions(static=StaticShape(100, 96))
        )
    options = ExportOptions(formats=("onnx",), precisions=("fp32",), static=StaticShape(96, 104))
    manifest = export_bundle(tmp_path / "net.safetensors", target, options)
    assert "reflection" in manifest.skipped["small"]
    parity = validate(target, ValidationOptions(backends=("onnxruntime",)))
    assert passed(parity)
    assert {r.shape for r in parity.results if r.max_abs is not None} == {(96, 104)}
    image = pictures(150, 31, 1)
    assert load(target, "onnxruntime")(image, 2).shape == (1, 3, 300, 62)


def test_a_network_that_needs_the_whole_image_says_so(tmp_path: Path) -> None:
    config = COMPOSITIONS["edsr-baseline-hiif"].small
    torch.manual_seed(0)
    network = build_network({**config, "upsampler": {**config["upsampler"], "levels": 2}})
    save_checkpoint(network.eval(), tmp_path / "net.safetensors")
    target = tmp_path / "net.bundle"
    options = ExportOptions(
        formats=("onnx",), precisions=("fp32",), static=StaticShape(16, 20, 2.0)
    )
    export_bundle(tmp_path / "net.safetensors", target, options)
    upscaler = load(target, "onnxruntime")
    image = pictures(16, 20, 1)
    with torch.no_grad():
        grid = Grid.from_scale(16, 20, 2)
        want = load_checkpoint(target / "model.safetensors")(torch.from_numpy(image), grid).numpy()
    assert np.abs(upscaler(image, 2) - want).max() <= 1e-4
    with pytest.raises(UsageError, match="images of 20x16"):
        upscaler(pictures(16, 21, 1), 2)
    with pytest.raises(UsageError, match="renders 40x32"):
        upscaler(image, 2.5)
    assert passed(validate(target, ValidationOptions(backends=("onnxruntime",))))


def test_positions_on_the_last_sample_move_to_the_end() -> None:
    index = np.array([-1, 0, 3, 4, 4], np.int32)
    moved = in_longer(index, 5, 9)
    assert moved.dtype == np.int32
    assert moved.tolist() == [-1, 0, 3, 8, 8]
    assert in_longer(index, 5, 5).tolist() == index.tolist()


@pytest.mark.long
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_in_every_format(shipped_bundle: Any, tmp_path: Path, name: str) -> None:
    from scaleport.shipped import find_checkpoint

    target = tmp_path / "fixed.bundle"
    manifest = export_bundle(
        find_checkpoint(name), target, ExportOptions(static=StaticShape(80, 88))
    )
    assert set(manifest.graphs) >= {*EVERY}
    parity = validate(target, ValidationOptions(selection="quick"))
    assert passed(parity), "\n".join(map(describe, failures(parity)))
    dynamic, fixed = (load(b, "onnxruntime") for b in (shipped_bundle(name), target))
    for height, width in ((80, 88), (23, 19), (150, 131)):
        image = pictures(height, width, 1)
        for scale in (2, 2.7, (2.0, 3.5)):
            assert np.abs(dynamic(image, scale) - fixed(image, scale)).max() <= 1e-5
