from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from bundle_samples import CONTENT, onnx, write

from scaleport.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME, Parity, ParityResult
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.bundle.signing import new_key, sign_bundle
from scaleport.bundle.writer import update_manifest
from scaleport.cli.main import main
from scaleport.errors import ArtifactError, BackendError, OutputError, UsageError

pytest.importorskip("cryptography")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "my.key")
    return tmp_path / "my.key"


@pytest.fixture
def signed(bundle: Path, key: Path) -> Path:
    sign_bundle(bundle, key)
    return bundle


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def test_a_signed_bundle_opens_with_the_key_and_without(signed: Path, key: Path) -> None:
    assert open_bundle(signed, verify="all", verify_key=public(key)).manifest.name == "tiny"
    assert open_bundle(signed, verify="all").manifest.name == "tiny"
    assert not list(signed.glob(".*"))


def test_the_private_key_is_for_its_owner_only(key: Path) -> None:
    assert key.stat().st_mode & 0o077 == 0 or sys.platform == "win32"
    with pytest.raises(OutputError, match="exists"):
        new_key(key)


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    other = new_key(tmp_path / "other.key")
    with pytest.raises(ArtifactError, match=r"other\.key\.pub.*another key signed it"):
        open_bundle(signed, verify_key=other)


def test_a_stripped_signature_is_refused(signed: Path, key: Path) -> None:
    (signed / SIGNATURE_NAME).unlink()
    with pytest.raises(ArtifactError, match="is not signed"):
        open_bundle(signed, verify_key=public(key))


def test_a_changed_manifest_is_refused_before_it_is_parsed(signed: Path, key: Path) -> None:
    (signed / MANIFEST_NAME).write_bytes(b"{")
    with pytest.raises(ArtifactError, match="changed since"):
        open_bundle(signed, verify_key=public(key))


def test_a_manifest_that_only_looks_the_same_is_refused(signed: Path, key: Path) -> None:
    source = signed / MANIFEST_NAME
    source.write_bytes(source.read_bytes() + b" ")
    open_bundle(signed)
    with pytest.raises(ArtifactError, match="changed since"):
        open_bundle(signed, verify_key=public(key))


def test_a_changed_file_is_refused_by_its_hash(signed: Path, key: Path) -> None:
    (signed / "onnx/fp32/encode.onnx").write_bytes(onnx("eNcode"))
    with pytest.raises(ArtifactError, match="sha256 differs"):
        open_bundle(signed, verify_key=public(key)).file("onnx/fp32/encode.onnx")


def test_another_manifest_is_refused_beside_a_signature_or_removes_it(signed, key) -> None:
    changed = msgspec.structs.replace(read_manifest(signed), license="another")
    before = (signed / MANIFEST_NAME).read_bytes()
    with pytest.raises(OutputError, match=r"would void the signature.*--store"):
        update_manifest(signed, changed)
    assert (signed / MANIFEST_NAME).read_bytes() == before
    open_bundle(signed, verify_key=public(key))
    update_manifest(signed, changed, void_signature=True)
    assert not (signed / SIGNATURE_NAME).exists()
    with pytest.raises(ArtifactError, match="is not signed"):
        open_bundle(signed, verify_key=public(key))
    sign_bundle(signed, key)
    assert open_bundle(signed, verify_key=public(key)).manifest.license == "another"


@pytest.mark.parametrize("how", ["--rejudge", "--rejudge --store", "--rejudge --no-store"])
def test_validate_says_what_becomes_of_a_signature(bundle, key, capsys, how) -> None:
    gates = {"fp32": {"psnr": 80.0}}
    case = ParityResult(
        backend="onnxruntime",
        precision="fp32",
        shape=(3, 4),
        shape_name="odd",
        scale=(2.0, 2.0),
        mode="whole",
        max_abs=0.0,
        psnr=None,
        passed=True,
    )
    parity = Parity(gates=gates, device={}, tool_versions={}, results=(case,))
    update_manifest(bundle, msgspec.structs.replace(read_manifest(bundle), parity=parity))
    sign_bundle(bundle, key)
    before = (bundle / MANIFEST_NAME).read_bytes()
    assert main(["validate", str(bundle), *how.split(), "--gate-fp32-psnr", "70"]) == 0
    err = capsys.readouterr().err
    kept = "--store" not in how.split()
    assert (bundle / SIGNATURE_NAME).exists() is kept
    assert ((bundle / MANIFEST_NAME).read_bytes() == before) is kept
    said = {
        "--rejudge": "the results are not stored",
        "--rejudge --store": f"sign it again with scaleport sign {bundle}",
        "--rejudge --no-store": "",
    }[how]
    assert said in err
    assert (err == "") == (said == "")
    if kept:
        open_bundle(bundle, verify_key=public(key))


def test_the_signature_of_another_bundle_is_refused(signed: Path, key: Path, tmp_path) -> None:
    write(tmp_path / "other", {**CONTENT, "model.safetensors": b"other"})
    shutil.copy(signed / SIGNATURE_NAME, tmp_path / "other" / SIGNATURE_NAME)
    with pytest.raises(ArtifactError, match="changed since"):
        open_bundle(tmp_path / "other", verify_key=public(key))


@pytest.mark.parametrize(
    "data", [b"", b"!!", base64.b64encode(b"short"), base64.b64encode(b"x" * 65), b"\xff" * 5000]
)
def test_a_damaged_signature(signed: Path, key: Path, data: bytes) -> None:
    (signed / SIGNATURE_NAME).write_bytes(data)
    with pytest.raises(ArtifactError, match="no Ed25519 signature"):
        open_bundle(signed, verify_key=public(key))


def test_a_signature_that_is_a_link_or_a_folder(signed: Path, key: Path, tmp_path: Path) -> None:
    place = signed / SIGNATURE_NAME
    place.rename(tmp_path / "sig")
    place.symlink_to(tmp_path / "sig")
    with pytest.raises(ArtifactError, match="link out"):
        open_bundle(signed, verify_key=public(key))
    place.unlink()
    place.mkdir()
    with pytest.raises(ArtifactError, match="cannot read"):
        open_bundle(signed, verify_key=public(key))


def test_a_damaged_bundle_is_not_signed(bundle: Path, key: Path) -> None:
    (bundle / "onnx/fp32/encode.onnx").write_bytes(onnx("eNcode"))
    with pytest.raises(ArtifactError, match="sha256"):
        sign_bundle(bundle, key)
    assert not (bundle / SIGNATURE_NAME).exists()


def test_a_manifest_cannot_list_its_signature(bundle: Path) -> None:
    with pytest.raises(UsageError, match="signature"):
        write(bundle, {**CONTENT, SIGNATURE_NAME: b"x"}, overwrite=True)


def test_keys_that_are_none(bundle: Path, key: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    text = tmp_path / "text"
    text.write_text("no key")
    other = tmp_path / "p256"
    other.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    for wrong, word in (
        (text, "not a private key"),
        (other, "not an Ed25519"),
        (public(key), "not a private key"),
        (tmp_path / "none", "^cannot read the key"),
    ):
        with pytest.raises(UsageError, match=word):
            sign_bundle(bundle, wrong)
    for wrong, word in (
        (text, "not a public key"),
        (key, "is a private key"),
        (tmp_path, "cannot"),
    ):
        with pytest.raises(UsageError, match=word):
            open_bundle(bundle, verify_key=wrong)
    assert not (bundle / SIGNATURE_NAME).exists()


def test_without_the_library(bundle: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("cryptography")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"pip install 'scaleport\[sign\]'"):
        sign_bundle(bundle, key)
    with pytest.raises(BackendError, match="cryptography"):
        open_bundle(bundle, verify_key=public(key))


def test_openssl_agrees(signed: Path, key: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    raw = tmp_path / "raw"
    raw.write_bytes(base64.b64decode((signed / SIGNATURE_NAME).read_bytes()))
    command = [openssl, "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(public(key))]
    command += ["-in", str(signed / MANIFEST_NAME), "-sigfile", str(raw)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Verified Successfully" in ran.stdout, ran.stderr


def test_verbs(bundle: Path, tmp_path: Path, capsys) -> None:
    key = tmp_path / "k"
    assert main(["sign", "--new-key", str(key)]) == 0
    check = ["inspect", str(bundle), "--verify-key", f"{key}.pub", "-q"]
    assert main(check) == 4
    assert main(["sign", str(bundle), "--key", str(key)]) == 0
    assert main([*check, "--verify"]) == 0
    assert main(["sign", str(bundle)]) == 2
    assert main(["sign"]) == 2
    assert main(["sign", str(bundle), "--new-key", str(key)]) == 2
    assert main(["sign", "--key", str(key), "--new-key", str(tmp_path / "n")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_new_export_is_not_signed(signed: Path, key: Path) -> None:
    write(signed, overwrite=True)
    with pytest.raises(ArtifactError, match="not signed"):
        open_bundle(signed, verify_key=public(key))
