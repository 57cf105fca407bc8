"""Signatures: whoever holds the key has seen this manifest, and with its hashes every file.

Ed25519 over the bytes of ``manifest.json``, kept in ``manifest.sig`` as one line of base64. Keys
are PEM files (PKCS #8 and SubjectPublicKeyInfo), so that ``openssl pkeyutl -rawin`` makes and
checks the same signatures. The package ``cryptography`` does the arithmetic.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from scaleport.atomic import Pending, written
from scaleport.bundle.manifest import SIGNATURE_NAME
from scaleport.bundle.reader import open_bundle, read_manifest_bytes
from scaleport.bundle.signature import key_bytes, library, said
from scaleport.errors import OutputError, UsageError


def new_key(path: Path) -> Path:
    """Make a pair of keys: the private one at ``path``, the public one beside it, ``NAME.pub``.

    Returns:
        Path of the public key.

    Raises:
        OutputError: if one of the files exists already or cannot be written.
        BackendError: if the package ``cryptography`` is not installed.
    """
    serialization, ed25519 = library()
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
    private = _private_key(key)
    data = read_manifest_bytes(bundle)
    if open_bundle(bundle, verify="all").manifest_bytes != data:
        raise OutputError(f"{bundle} has changed since it was opened; run it again")
    signature = base64.b64encode(private.sign(data)) + b"\n"
    target = bundle / SIGNATURE_NAME
    new = Pending(target, follow=False)
    with written(target):
        try:
            new.write(signature)
            new.commit()
        finally:
            new.discard()
    return target


def _private_key(path: Path) -> Any:
    serialization, ed25519 = library()
    data = key_bytes(path)
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:  # the latter: it has a password
        raise UsageError(
            f"{path} is not a private key without a password: {said(error)}"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 key; make one with scaleport sign --new-key")
    return key
