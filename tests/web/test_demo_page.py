"""The demo page in Chromium: what it shows is what ONNX Runtime renders."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from web_commands import run

import scaleport
from scaleport.cli.main import main
from scaleport.errors import UsageError
from scaleport.imaging.files import Image, load_image, save_image
from scaleport.imaging.resample import imresize
from scaleport.ready import READY
from scaleport.serving import site as sites
from scaleport.serving.site import SiteServer

SHOWN = 2
"""Steps of 255 by which shown pixels may differ."""


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    (tmp_path / "ort").mkdir()
    (tmp_path / "index.html").write_text("<title>x</title>")
    (tmp_path / "ort/a.wasm").write_bytes(b"\0asm")
    (tmp_path / "ort/a.mjs").write_text("export {}")
    return tmp_path


def test_the_site_is_served_isolated_and_with_its_types(shell: Path) -> None:
    with SiteServer(shell, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        types = {"": "text/html", "ort/a.wasm": "application/wasm", "ort/a.mjs": "text/javascript"}
        for name, kind in types.items():
            with urllib.request.urlopen(server.address + name) as answer:
                assert answer.headers["Content-Type"].startswith(kind)
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
                assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(server.address + "../secret")
        with pytest.raises(UsageError, match="try --port 0"):
            SiteServer(shell, server.server_port)
        server.shutdown()


def test_a_folder_without_a_site_is_refused(tmp_path: Path, capsys) -> None:
    assert main(["web", str(tmp_path)]) == 2
    assert "make web" in capsys.readouterr().err


def test_models_of_the_site_are_those_of_the_package(tmp_path: Path) -> None:
    old = tmp_path / "models/scaleport-any.bundle/onnx/fp32/old.onnx"
    old.parent.mkdir(parents=True)
    old.touch()
    (made,) = sites.write_models(tmp_path, ["scaleport-any"])
    listed = json.loads((tmp_path / "models/models.json").read_text())
    assert [entry["bundle"] for entry in listed] == ["models/scaleport-any.bundle"]
    golden = np.fromfile(tmp_path / "golden/expected.f32", "<f4")
    assert golden.size == 3 * 41 * 57
    graphs = made / "onnx/fp32"
    assert {path.name for path in graphs.iterdir()} == {"encode.onnx", "render.onnx"}
    for path in graphs.iterdir():
        assert path.read_bytes() == (READY / made.name / "onnx/fp32" / path.name).read_bytes()


def photo() -> np.ndarray:
    """240 x 320 pixels with edges, gradients and texture."""
    y, x = np.mgrid[0:240, 0:320].astype(np.float64)
    waves = np.sin(x / 9 + np.sin(y / 31) * 3) * np.cos(y / 13)
    discs = ((x % 80 - 40) ** 2 + (y % 60 - 30) ** 2 < 400) * 60
    noise = np.random.default_rng(2).normal(0, 6, (240, 320, 3))
    base = np.stack([120 + 70 * waves, 100 + discs + 40 * waves, 90 + x / 4 - discs / 2], axis=-1)
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def export(path: Path) -> None:
    from scaleport.export.exporter import export_bundle
    from scaleport.export.plan import ExportOptions
    from scaleport.shipped import find_checkpoint

    options = ExportOptions(formats=("onnx",), precisions=("fp32",))
    export_bundle(find_checkpoint("scaleport-any"), path, options)


@pytest.fixture(scope="module")
def used(node, browser, built, shared, tiny_bundle, tmp_path_factory):
    """The page after a visit: what the driver found, its files, and the bundle."""
    root = tmp_path_factory.mktemp("page")
    folder, out = root / "site", root / "out"
    out.mkdir()
    bundle = shared("scaleport-any-page.bundle", export)
    models = {"scaleport-any": bundle, "tiny": tiny_bundle("igconv", "onnx")}
    for name, source in models.items():
        sites._copy_stages(source, folder / f"models/{name}.bundle")
    listed = [{"name": n, "title": n, "bundle": f"models/{n}.bundle"} for n in models]
    (folder / "models/models.json").write_text(json.dumps(listed))
    sites._write_golden(folder / "golden")
    save_image(root / "photo.png", Image(photo()))
    run([node, "build.mjs", "site", str(folder)])
    page = [node, "test/page.mjs", str(folder), str(root / "photo.png"), str(out)]
    return json.loads(run(page, timeout=1500, SCALEPORT_CHROMIUM=browser)), out, bundle


WRONG_ADAPTER = """
if (globalThis.GPUDevice) {
  const made = GPUDevice.prototype.createShaderModule;
  GPUDevice.prototype.createShaderModule = function (given) {
    const code = given.code.replaceAll("return min(a, b);", "return max(a, b);");
    return made.call(this, { ...given, code });
  };
}
"""
"""Put before ONNX Runtime: a device whose Min computes Max."""


@pytest.fixture
def small_site(node: str, built: Path, tiny_bundle, tmp_path: Path) -> Path:
    """The page with one tiny model, and a photograph beside it."""
    folder = tmp_path / "site"
    sites._copy_stages(tiny_bundle("igconv", "onnx"), folder / "models/tiny.bundle")
    listed = [{"name": "tiny", "title": "tiny", "bundle": "models/tiny.bundle"}]
    (folder / "models/models.json").write_text(json.dumps(listed))
    sites._write_golden(folder / "golden")
    save_image(tmp_path / "photo.png", Image(photo()))
    run([node, "build.mjs", "site", str(folder)])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("right", [True, False])
def test_only_an_adapter_that_passes_the_self_test_is_used(
    node: str, browser: str, small_site: Path, right: bool
) -> None:
    """On one that computes wrongly the page says so and goes on with WebAssembly."""
    if not right:
        runtime = small_site / "ort/ort-wasm-simd-threaded.asyncify.mjs"
        runtime.write_text(WRONG_ADAPTER + runtime.read_text())
    visit = [node, "test/fallback.mjs", str(small_site), str(small_site.parent / "photo.png")]
    found = json.loads(run(visit, timeout=600, SCALEPORT_CHROMIUM=browser))
    assert found["errors"] == []
    if right:
        assert found["said"].startswith("Ready")
        assert "WebGPU (" in found["status"]
    else:
        assert re.match(r"WebGPU is not used: its self-test is off by [\d.e-]+", found["said"])
        assert "WebAssembly (" in found["status"]


def difference(found: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


@pytest.mark.slow
def test_a_download_and_a_zoomed_region_are_those_of_onnx_runtime(used) -> None:
    found, out, bundle = used
    up = scaleport.load(bundle, "onnxruntime", "fp32")
    view = up.open(photo())
    saved = load_image(out / "x27-download.png").pixels
    assert difference(saved, view.render(scale=2.7)) <= SHOWN
    assert found["downloadName"] == "photo-x2.70.png"

    scale, top, left = (found["x53"][key] for key in ("scale", "top", "left"))
    assert scale == 5.3
    rows, cols = view.output_size(scale)
    for name in ("x53-stage", "x53-bicubic"):
        stage = load_image(out / f"{name}.png").pixels[..., :3]
        y0, x0 = max(0, -top), max(0, -left)
        y1, x1 = min(rows, stage.shape[0] - top), min(cols, stage.shape[1] - left)
        assert (y1 - y0) * (x1 - x0) > 500_000
        shown = stage[y0 + top : y1 + top, x0 + left : x1 + left]
        if name == "x53-stage":
            expected = view.render(scale=scale, region=(y0, x0, y1, x1))
        else:
            whole = np.clip(np.rint(imresize(photo(), rows, cols)), 0, 255)
            expected = whole[y0:y1, x0:x1]
        assert difference(shown, expected) <= SHOWN, name


@pytest.mark.slow
def test_a_zoom_step_encodes_nothing_and_the_page_works_offline(used) -> None:
    found, _, _ = used
    tiles = found["opened"]["encoded"]
    assert tiles == 4  # 240 x 320 in tiles of at most 192
    for step in ("x27", "x53", "moved", "wheeled"):
        assert found[step]["encoded"] == tiles, step
    assert found["wheeled"]["scale"] < 5.3
    assert found["offline"]["encoded"] == tiles
    # "Rendered" is said of what is seen, not of the zoom before.
    assert found["unfinished"] == 0
    assert found["isolated"]
    assert "threads)" in found["status"] or "1 thread)" in found["status"]


@pytest.mark.slow
def test_the_page_is_accessible_and_sends_nothing(used) -> None:
    found, _, _ = used
    assert found["violations"] == []
    assert found["welcomeViolations"] == []
    assert found["divider"] == "0"
    assert found["overflow"] <= 0
    assert found["foreign"] == []
    assert found["errors"] == []
    assert "not an image that this browser can read" in found["brokenMessage"]
