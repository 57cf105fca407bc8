"""What the documents tell a reader to type works, and what they point to is there.

Every ``scaleport`` command of a code block is run as it stands, on a photo and a bundle that have
the names used there. The bundle is that of a tiny network; only ``export`` takes the shipped one.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from documents import BLOCKS, BUNDLE, PAGES, PHOTO, README, ROOT, SHELL
from typer.main import get_command

from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.bundle.writer import update_manifest
from scaleport.cli.main import VERBS, app, main
from scaleport.imaging.files import Image, load_image, save_image
from scaleport.shipped import shipped_weights
from scaleport.training.shipped import find_recipe

IN_REPOSITORY = {"scaleport", "tests", "docs", "examples", "benchmarks"}
SLOW = {"export", "calibrate", "validate", "bench", "bisect"}

SHOWN = {
    shlex.join(words): words
    for block in BLOCKS
    if block.language == SHELL and not block.not_run
    for words in block.commands()
}
OURS = {line: words[1:] for line, words in SHOWN.items() if words[0] == "scaleport"}
OTHERS = {line: words for line, words in SHOWN.items() if words[0] != "scaleport"}


def clip(path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV (extra video) is not installed")
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for _ in range(2):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(PHOTO[:24, :32], format="rgb24")))
        made.mux(stream.encode())


def upscaled(folder: Path, output: str = "") -> None:
    if output and not output.endswith("/"):
        made = load_image(folder / output).pixels
        assert made.shape[0] > PHOTO.shape[0]
        assert made.shape[1] > PHOTO.shape[1]
        return
    if (folder / "clip.mp4").exists():
        assert (folder / "clip_x2.mp4").stat().st_size > 500
        return
    names = {p.name for p in folder.glob("larger/**/*.png")}
    if names:
        assert names <= {"page_x2.png", "page_x4.png"}
        return
    (target,) = folder.glob("photo_x*.png")
    sizes = {"photo_x2.png": (128, 104), "photo_x2.7.png": (173, 140), "photo_x6.5.png": (416, 338)}
    assert load_image(target).pixels.shape == (*sizes[target.name], 3)


def exported(folder: Path, args: list[str]) -> None:
    name = Path(args[1]).stem if Path(args[1]).stem != "model" else Path(args[1]).parent.name
    bundle = open_bundle(folder / f"{name}.bundle", verify="all")
    if args[1] in shipped_weights():
        assert bundle.checkpoint().read_bytes() == shipped_weights()[args[1]].read_bytes()
    asked = args[args.index("--format") + 1] if "--format" in args else "onnx,openvino,coreml"
    assert set(asked.split(",")) <= set(bundle.formats())
    precisions = args[args.index("--precision") + 1] if "--precision" in args else "fp32,fp16"
    assert bundle.precisions("onnx") == tuple(precisions.split(","))


def calibrated(folder: Path) -> None:
    (bundle,) = folder.glob("*.bundle")
    assert open_bundle(bundle, verify="all").precisions("openvino") == ("fp32", "fp16", "int8")


def validated(folder: Path) -> None:
    if (folder / "report.html").exists():
        assert "<title>Parity of" in (folder / "report.html").read_text(encoding="utf-8")
    parity = read_manifest(folder / BUNDLE).parity
    assert parity is not None
    assert all(case.passed for case in parity.results)


def published(path: Path) -> None:
    """A small EDSR-LIIF under the names of its authors."""
    import torch

    shapes = {
        "encoder.head.0": (8, 3, 3, 3),
        "encoder.body.0.body.0": (8, 8, 3, 3),
        "encoder.body.0.body.2": (8, 8, 3, 3),
        "encoder.body.1": (8, 8, 3, 3),
        "imnet.layers.0": (16, 76),
        "imnet.layers.2": (3, 16),
    }
    weights = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    biases = {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
    torch.save(weights | biases, path)


def imported(folder: Path) -> None:
    from scaleport.models import load_checkpoint

    assert load_checkpoint(folder / "NAME.safetensors").config["upsampler"]["name"] == "liif"


def parsed(args: list[str]) -> None:
    command = get_command(app).get_command(None, args[0])
    with command.make_context(args[0], args[1:]) as context:
        recipe = str(context.params["recipe"])
    assert find_recipe(recipe) if not recipe.startswith("own") else recipe


def signed(folder: Path) -> None:
    assert (folder / "photo.key.pub").is_file()
    assert (folder / BUNDLE / "manifest.sig").exists() == (folder / "wants.sig").exists()


def configured(folder: Path) -> None:
    assert any((folder / "models").rglob("*.json")) or any((folder / "models").rglob("*.pbtxt"))


EFFECTS: dict[str, Callable[[Path], None]] = {
    "import": imported,
    "calibrate": calibrated,
    "validate": validated,
    "bisect": lambda folder: None,
    "models": lambda folder: None,
    "inspect": lambda folder: None,
    "doctor": lambda folder: None,
    "eval": lambda folder: None,
    "bench": lambda folder: None,
    "sign": signed,
    "serve-config": configured,
}


def _marks(arguments: list[str]) -> list[pytest.MarkDecorator]:
    if "calibrate" in arguments or "int8" in arguments:
        return [pytest.mark.long]
    return [pytest.mark.slow] * (arguments[0] in SLOW)


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, marks=_marks(OURS[line])) for line in OURS],
)
def test_command_does_what_it_is_shown_for(folder: Path, capfd, line: str) -> None:
    args = OURS[line]
    if args[0] in {
        "web",
        "serve",
    }:  # they run until stopped; their own tests start them
        command = get_command(app).get_command(None, args[0])
        command.make_context(args[0], args[1:]).close()
        return
    if args[0] == "train":  # for hours; the smoke recipes' tests train
        parsed(args)
        return
    if args[0] == "import" and "--set" in args:
        # Files of several authors; tests/models/test_import_settings.py imports such files.
        command = get_command(app).get_command(None, args[0])
        command.make_context(args[0], args[1:]).close()
        return
    if "--spandrel" in args:
        pytest.skip(
            "needs a file that spandrel knows; tests/models/test_import_spandrel.py has one"
        )
    if "int8" in args:
        pytest.skip("needs a calibrated bundle; tests/cli/test_cli_calibrate.py makes one")
    if args[0] == "export" and args[1].endswith(".safetensors"):
        Path(args[1]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(BUNDLE) / "model.safetensors", args[1])
    if args[0] in ("export", "calibrate"):
        shutil.rmtree(BUNDLE)
    if args[0] == "calibrate":
        images = Path(args[args.index("--data") + 1])
        images.mkdir()
        for number in range(3):
            save_image(images / f"{number}.png", Image(PHOTO))
    if "--key" in args or "--verify-key" in args:
        pytest.importorskip("cryptography")
        from scaleport.bundle.signing import new_key, sign_bundle

        new_key(folder / "photo.key")
        if "--key" in args:
            (folder / "wants.sig").touch()
        else:
            sign_bundle(folder / BUNDLE, folder / "photo.key")
    if "clip.mp4" in args:
        clip(folder / "clip.mp4")
    if args[0] == "import":
        published(folder / "FILE.pth")
    if args[0] == "eval":
        for name in ("Set5", "Set14", "B100"):
            (folder / "BENCH" / name).mkdir(parents=True)
            save_image(folder / "BENCH" / name / "photo.png", Image(PHOTO))
        shutil.copytree(BUNDLE, "photo.bundle")
    if args[0] == "bench":
        args = in_a_moment(args)
        if not Path(args[1]).exists():  # a shipped network's; here it is the small one
            shutil.copytree(BUNDLE, args[1])
    if args[0] == "validate":  # one format and precision; all of them are the parity tests' work
        manifest = read_manifest(Path(BUNDLE))
        kept = tuple(graph for graph in manifest.graphs["onnx"] if graph.precision == "fp32")
        update_manifest(Path(BUNDLE), msgspec.structs.replace(manifest, graphs={"onnx": kept}))
    if "--load-outputs" in args:  # what another line of the page keeps
        assert main(["validate", BUNDLE, "--quick", "--save-outputs", args[-1]]) == 0
    if "--max-memory" in args:
        # Of the whole process: the memory of the tests before it would count.
        code = subprocess.run([sys.executable, "-m", "scaleport", *args], check=False).returncode
    else:
        code = main(args)
    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    assert out
    if "--save-outputs" in args:
        assert (folder / args[-1] / "outputs.json").is_file()
        return
    if args[0] == "export":
        exported(folder, args)
    elif args[0] == "upscale":
        upscaled(folder, args[args.index("-o") + 1] if "-o" in args else "")
    else:
        EFFECTS[args[0]](folder)


def in_a_moment(args: list[str]) -> list[str]:
    """The same options with images of a few pixels, for nothing is learnt here from the figures."""
    if "--size" not in args:
        return [*args, "--size", "24"]
    at = args.index("--size") + 1
    sizes = ",".join(str(24 + n) for n, _ in enumerate(args[at].split(",")))
    return [*args[:at], sizes, *args[at + 1 :]]


def test_every_verb_is_shown() -> None:
    assert {args[0] for args in OURS.values()} == set(VERBS)


@pytest.mark.parametrize("line", OTHERS)
def test_other_command_names_what_there_is(line: str) -> None:
    tool, *args = OTHERS[line]
    if tool in {"base64", "openssl"}:
        tested = (ROOT / "tests/bundle/test_signing.py").read_text(encoding="utf-8")
        assert tool in tested
        return
    if tool == "curl":  # tests/serving/test_server.py sends the same request
        assert "/v2/models/scaleport/" in line
        return
    if tool in {"npm", "node"}:
        assert (ROOT / "web/package.json").is_file()
        return
    assert tool in {"make", "pytest", "pre-commit", "python", "pip"}, (
        "say here how to check this command"
    )
    if tool == "make":
        assert re.search(rf"^{args[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if tool == "python":
        program = f"{args[1].replace('.', '/')}.py" if args[0] == "-m" else args[0]
        source = (ROOT / program).read_text(encoding="utf-8")
        if "from ratio_tables import" in source:  # options that benchmarks share
            source += (ROOT / "benchmarks/ratio_tables.py").read_text(encoding="utf-8")
        options = [arg.split("=")[0] for arg in args[1:] if arg.startswith("--")]
        assert all(f'"{option}"' in source for option in options)
    named = [arg for arg in args if arg.split("/")[0] in IN_REPOSITORY]
    assert all((ROOT / arg).exists() for arg in named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_inline_commands_name_verbs_and_options_that_exist(page: Path, capsys) -> None:
    for said in re.findall(r"`scaleport ([a-z][^`|]*)`", page.read_text(encoding="utf-8")):
        verb, *args = said.split()
        assert main([verb, "--help"]) == 0, said
        help_text = capsys.readouterr().out
        for option in (arg for arg in args if arg.startswith("-")):
            assert re.search(rf"{option}\b", help_text), said


LINKS = [
    (page, target)
    for page in PAGES
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    if not re.match(r"[a-z]+:|#", target)
]


@pytest.mark.parametrize(
    ("page", "target"), LINKS, ids=[f"{page.name}-{target}" for page, target in LINKS]
)
def test_link_leads_to_a_file(page: Path, target: str) -> None:
    assert (page.parent / target.split("#")[0]).exists()


def test_shipped_weights_are_those_the_readme_names() -> None:
    names = r"\b(?:\w+-small|scaleport-(?:s|m|any|photo))\b"
    named = set(re.findall(names, README.read_text(encoding="utf-8")))
    assert named == set(shipped_weights())


@pytest.mark.parametrize("name", shipped_weights())
def test_shipped_weights_load_by_name(name: str, capfd) -> None:
    assert main(["inspect", name]) == 0
    assert capfd.readouterr().out.startswith(str(shipped_weights()[name]))


def test_extras_that_anything_tells_to_install_exist() -> None:
    declared = re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    texts = [*PAGES, *sorted((ROOT / "scaleport").rglob("*.py"))]
    named = {
        extra
        for path in texts
        for listed in re.findall(
            r"(?:scaleport|'\.)\[([a-z,-]+)\]", path.read_text(encoding="utf-8")
        )
        for extra in listed.split(",")
    }
    assert {"onnxruntime", "export"} <= named <= set(declared)
