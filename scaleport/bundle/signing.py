"""Signatures: whoever holds the key has seen this manifest, and with its hashes every file.

Ed25519 over the bytes of ``manifest.json``, kept in ``manifest.sig`` as one line of base64. Keys
are PEM files (PKCS #8 and SubjectPublicKeyInfo), so that ``openssl pkeyutl -rawin`` makes and
checks the same signatures. The package ``cryptography`` does the arithmetic.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, Final

from scaleport.atomic import write_new
from scaleport.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME
from scaleport.errors import ArtifactError, BackendError, OutputError, UsageError, one_line

_MOST_KEY_BYTES: Final = 1 << 16
_SIGNATURE_BYTES: Final = 64


def new_key(path: Path) -> Path:
    """Make a pair of keys: the private one at ``path``, the public one beside it, ``NAME.pub``.

    Returns:
        Path of the public key.

    Raises:
        OutputError: if one of the files exists already or cannot be written.
        BackendError: if the package ``cryptography`` is not installed.
    """
    serialization, ed25519 = _library()
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    beside = path.with_name(path.name + ".pub")
    for target, data, mode in ((path, private, 0o600), (beside, public, 0o644)):
        try:
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
        with open(handle, "wb") as file:  # noqa: PTH123 - a handle, not a path
            file.write(data)
    return beside


def sign_bundle(bundle: Path, key: Path) -> Path:
    """Sign a bundle whose files were all found to be those of its manifest.

    Args:
        bundle: the bundle directory.
        key: the private key, a PEM file without a password.

    Returns:
        Path of the signature.

    Raises:
        UsageError: if there is no bundle, or the key is none.
        ArtifactError: if the bundle is damaged.
        OutputError: if the signature cannot be written; an older one is still there then.
        BackendError: if the package ``cryptography`` is not installed.
    """
    from scaleport.bundle.reader import open_bundle, read_manifest_bytes

    private = _private_key(key)
    data = read_manifest_bytes(bundle)
    if open_bundle(bundle, verify="all").manifest_bytes != data:
        raise OutputError(f"{bundle} has changed since it was opened; run it again")
    signature = base64.b64encode(private.sign(data)) + b"\n"
    target = bundle / SIGNATURE_NAME
    temporary = bundle / f".{SIGNATURE_NAME}.{secrets.token_hex(8)}.tmp"
    try:
        write_new(temporary, signature)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def check_signature(bundle: Path, data: bytes, key: Path) -> None:
    """Hold a manifest against its signature.

    Args:
        bundle: the bundle directory.
        data: the bytes of its manifest.
        key: the public key, a PEM file.

    Raises:
        ArtifactError: if there is no signature, or it is not one of these bytes by this key.
        UsageError: if the key is none.
        BackendError: if the package ``cryptography`` is not installed.
    """
    public = _public_key(key)
    source = bundle / SIGNATURE_NAME
    try:
        if not source.resolve(strict=True).is_relative_to(bundle.resolve(strict=True)):
            raise ArtifactError(f"{source} is a link out of the bundle; do not use it")
        with source.open("rb") as file:
            text = file.read(1024)
        signature = base64.b64decode(text.strip(), validate=True)
    except FileNotFoundError:
        raise ArtifactError(
            f"{bundle} is not signed ({SIGNATURE_NAME} is missing); ask for a signed one"
        ) from None
    except (OSError, RuntimeError) as error:
        raise ArtifactError(f"cannot read {source}: {one_line(error)}") from error
    except (binascii.Error, ValueError):
        signature = b""
    if len(signature) != _SIGNATURE_BYTES:
        raise ArtifactError(f"{source} is damaged: it is no Ed25519 signature")
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, data)
    except InvalidSignature:
        raise ArtifactError(
            f"the signature of {bundle} is not one of {key} over its {MANIFEST_NAME}: it was "
            "changed since, or another key signed it; do not use it, or sign it again"
        ) from None


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise BackendError(
            "signatures need cryptography, which is not installed: pip install 'scaleport[sign]'"
        ) from error
    return serialization, ed25519


def _private_key(path: Path) -> Any:
    serialization, ed25519 = _library()
    data = _key_bytes(path)
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:  # the latter: it has a password
        raise UsageError(
            f"{path} is not a private key without a password: {_said(error)}"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 key; make one with scaleport sign --new-key")
    return key


def _public_key(path: Path) -> Any:
    serialization, ed25519 = _library()
    data = _key_bytes(path)
    if b"PRIVATE KEY" in data:
        raise UsageError(f"{path} is a private key; check with the public one, {path}.pub")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is not a public key: {_said(error)}") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{path} is not an Ed25519 key; make one with scaleport sign --new-key")
    return key


def _key_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_KEY_BYTES)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read the key {path}: {why or error}") from error


def _said(error: Exception) -> str:
    """The first sentence of what the library says; the rest is advice to programmers."""
    return one_line(error).split(". ")[0]
