"""Holding a bundle's manifest against its signature. :mod:`scaleport.bundle.signing` makes them."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any, Final

from scaleport.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME
from scaleport.errors import ArtifactError, BackendError, UsageError, one_line

_MOST_KEY_BYTES: Final = 1 << 16
_SIGNATURE_BYTES: Final = 64


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


def library() -> tuple[Any, Any]:
    """Serialisation and Ed25519 of the package ``cryptography``; raises BackendError."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise BackendError(
            "signatures need cryptography, which is not installed: pip install 'scaleport[sign]'"
        ) from error
    return serialization, ed25519


def _public_key(path: Path) -> Any:
    serialization, ed25519 = library()
    data = key_bytes(path)
    if b"PRIVATE KEY" in data:
        raise UsageError(f"{path} is a private key; check with the public one, {path}.pub")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is not a public key: {said(error)}") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{path} is not an Ed25519 key; make one with scaleport sign --new-key")
    return key


def key_bytes(path: Path) -> bytes:
    """The bytes of a key's file; raises UsageError."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_KEY_BYTES)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read the key {path}: {why or error}") from error


def said(error: Exception) -> str:
    """The first sentence of what the library says; the rest is advice to programmers."""
    return one_line(error).split(". ")[0]
