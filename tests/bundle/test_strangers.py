"""What fuzzing found, and the parts of the checks that no single hostile file shows."""

from __future__ import annotations

import json
import struct
import threading
from pathlib import Path

import msgspec
import pytest
from bundle_samples import CONTENT, onnx, write

from scaleport.bundle.integrity import MOST_DEPTH, refuse_duplicates, refuse_excess
from scaleport.bundle.manifest import MANIFEST_NAME
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.errors import ArtifactError, ScaleportError, UsageError, one_line


@pytest.mark.parametrize("message", ["a\nb", "a\r\n\u2028b", "x" * 100_000, "\n" * 50])
def test_every_error_is_one_bounded_line(message: str) -> None:
    text = str(ScaleportError(message))
    assert len(text.splitlines()) <= 1
    assert len(text) < 2000


def test_quoted_reasons_can_be_printed() -> None:
    assert one_line("a\n\x1b[2Jb\t c") == r"a \x1b[2Jb c"
    assert len(one_line("\x00" * 10_000)) <= 500


def test_found_by_fuzzing_field_of_any_length(bundle: Path) -> None:
    content = json.loads((bundle / MANIFEST_NAME).read_bytes())
    (bundle / MANIFEST_NAME).write_text(json.dumps({**content, "x" * 5000: 1}))
    with pytest.raises(ArtifactError) as caught:
        read_manifest(bundle)
    assert len(str(caught.value)) < 1000


def test_found_by_fuzzing_record_with_a_line_break(tmp_path: Path) -> None:
    from scaleport.runtimes.engine_record import read_record

    (tmp_path / "x.engine").write_bytes(b"engine")
    (tmp_path / "x.engine.json").write_text('{"\\ngine_layers": 1}')
    with pytest.raises(ArtifactError) as caught:
        read_record(tmp_path / "x.engine")
    assert "\n" not in str(caught.value)


class TestCheckpoint:
    @pytest.fixture
    def changed(self, tiny_checkpoint, tmp_path: Path):
        """Write a checkpoint with another configuration, or another header."""

        def write(in_config=lambda config: None, in_header=lambda header: None) -> Path:
            data = tiny_checkpoint("liif").read_bytes()
            (length,) = struct.unpack("<Q", data[:8])
            header = json.loads(data[8 : 8 + length])
            meta = json.loads(header["__metadata__"]["scaleport"])
            in_config(meta["config"])
            header["__metadata__"]["scaleport"] = json.dumps(meta)
            in_header(header)
            text = json.dumps(header).encode()
            path = tmp_path / "x.safetensors"
            path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
            return path

        return write

    def test_found_by_fuzzing_option_with_a_line_break(self, changed) -> None:
        from scaleport.models import load_checkpoint

        path = changed(lambda config: config["upsampler"].update({"\n": 1}))
        with pytest.raises(ArtifactError, match="has no option") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)

    def test_found_by_fuzzing_type_of_any_length(self, changed) -> None:
        from scaleport.models import load_checkpoint

        def change(header) -> None:
            next(v for k, v in header.items() if k != "__metadata__")["dtype"] = "x" * 5000

        with pytest.raises(ArtifactError) as caught:
            load_checkpoint(changed(in_header=change))
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize(
        "shape", [["x", 1 << 40], ["x" * 80, 1 << 33], [True], [-1], [10**400], [1] * 99, "ab", 3]
    )
    def test_found_by_fuzzing_shape_of_texts(self, changed, shape) -> None:
        from scaleport.models.checkpoint import read_metadata

        def change(header) -> None:
            next(v for k, v in header.items() if k != "__metadata__")["shape"] = shape

        # A text times an integer is a longer text: of terabytes, or as many as there is memory.
        with pytest.raises(ArtifactError, match="not a Scaleport checkpoint"):
            read_metadata(changed(in_header=change))

    def test_a_wide_network_is_given_up_before_it_takes_memory(self, changed, monkeypatch) -> None:
        from torch.nn import init

        from scaleport.models import load_checkpoint

        def touched(*_, **__) -> None:
            raise AssertionError("memory of the weights was written")

        monkeypatch.setattr(init, "kaiming_uniform_", touched)
        path = changed(lambda config: config["encoder"].update(width=50_000))
        with pytest.raises(ArtifactError, match="more parameters than the file has weights"):
            load_checkpoint(path)


def test_the_bound_is_of_this_thread_and_ends_with_the_block() -> None:
    torch = pytest.importorskip("torch")
    from scaleport.models.checkpoint import bounded

    with bounded(10):
        other = threading.Thread(target=torch.nn.Linear, args=(1000, 1000))
        made: list[BaseException] = []
        other.run = lambda: made.append(torch.nn.Linear(100, 100))  # type: ignore[method-assign]
        other.start()
        other.join()
        assert made
        with pytest.raises(UsageError, match="parameters"):
            torch.nn.Linear(100, 100)
        with pytest.raises(UsageError, match="buffers"):
            torch.nn.Module().register_buffer("b", torch.empty(2 << 20))
    torch.nn.Linear(100, 100)


class TestCustomOperations:
    CUSTOM = b"\x08\x08\x3a\x0d\x0a\x0b\x22\x03Run\x3a\x04evil"

    def test_they_run_only_where_they_are_allowed(self, tmp_path: Path) -> None:
        write(tmp_path / "b", {**CONTENT, "onnx/fp32/encode.onnx": self.CUSTOM})
        with pytest.raises(ArtifactError, match=r"'evil\.Run'.*allow custom-ops"):
            open_bundle(tmp_path / "b").file("onnx/fp32/encode.onnx")
        opened = open_bundle(tmp_path / "b", verify="all", allow=["custom-ops"])
        assert opened.file("onnx/fp32/encode.onnx").exists()

    def test_extensions_of_openvino(self, tmp_path: Path) -> None:
        ir = b'<net><layer type="Run" version="extension"/></net>'
        write(tmp_path / "b", {**CONTENT, "openvino/fp32/encode.xml": ir})
        with pytest.raises(ArtifactError, match=r"'extension\.Run'"):
            open_bundle(tmp_path / "b", verify="all")
        open_bundle(tmp_path / "b", verify="all", allow=["custom-ops"])

    def test_an_unknown_allowance(self, tmp_path: Path) -> None:
        write(tmp_path / "b")
        with pytest.raises(UsageError, match=r"'everything'; known: custom-ops"):
            open_bundle(tmp_path / "b", allow=["everything"])

    def test_allowing_them_allows_no_foreign_file(self, tmp_path: Path) -> None:
        # initializer { external_data { key: "location" value: "/etc/passwd" } }
        entry = b"\x0a\x08location\x12\x0b/etc/passwd"
        tensor = b"\x6a" + bytes([len(entry)]) + entry
        graph = b"\x0a\x0a\x22\x08Identity\x2a" + bytes([len(tensor)]) + tensor
        model = b"\x08\x08\x3a" + bytes([len(graph)]) + graph
        write(tmp_path / "b", {**CONTENT, "onnx/fp32/encode.onnx": model})
        with pytest.raises(ArtifactError, match="'/etc/passwd', which is absolute"):
            open_bundle(tmp_path / "b", verify="all", allow=["custom-ops"])


def test_a_graph_is_checked_once_while_it_stays(tmp_path: Path, monkeypatch) -> None:
    from scaleport.bundle import reader

    write(tmp_path / "b")
    seen: list[str] = []
    monkeypatch.setattr(reader, "check_graph", lambda root, name, *_: seen.append(name))
    opened = open_bundle(tmp_path / "b")
    for _ in range(2):
        opened.file("onnx/fp32/encode.onnx")
    assert seen == ["onnx/fp32/encode.onnx"]


def test_onnx_parts_agree_with_the_package_onnx() -> None:
    package = pytest.importorskip("onnx")
    model = package.load_from_string(onnx("label"))
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    assert model.producer_name == "label"


def test_strict_json() -> None:
    refuse_duplicates(b'{"a": 1, "b": {"a": 1}}')
    with pytest.raises(ValueError, match="duplicate key 'a'"):
        refuse_duplicates(b'[{"b": {"a": 1, "a": 1}}]')
    deep: object = 1
    for _ in range(MOST_DEPTH - 1):
        deep = [deep]
    refuse_excess(deep, "it")
    with pytest.raises(ValueError, match="it is nested"):
        refuse_excess([deep], "it")
    with pytest.raises(ValueError, match="text"):
        refuse_excess({"a": ["x" * 5000]}, "it")
    with pytest.raises(ValueError, match="text"):
        refuse_excess({"x" * 5000: 1}, "it")


def test_terminals_are_not_commanded(bundle: Path, capsys) -> None:
    from scaleport.bundle.writer import update_manifest
    from scaleport.cli.main import main

    hostile = "\x1b[2J\x1b]0;owned\x07 \u202etxt.exe"
    update_manifest(bundle, msgspec.structs.replace(read_manifest(bundle), license=hostile))
    assert main(["inspect", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert r"\x1b[2J" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
