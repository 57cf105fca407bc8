"""Manifests that lie, overflow, or name what is not theirs."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from makers import EVIL, attack, copied, edit

EMPTY = {
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "bytes": 0,
}


def _raw(home: Path, data: bytes) -> None:
    (home / EVIL).mkdir()
    (home / EVIL / "manifest.json").write_bytes(data)


def _text(home: Path, good: Path, old: str, new: str) -> None:
    source = copied(home, good) / "manifest.json"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new, 1))


def _listed(home: Path, good: Path, *paths: str) -> None:
    edit(copied(home, good), lambda m: m["files"].update(dict.fromkeys(paths, EMPTY)))


def _set(home: Path, good: Path, **fields: Any) -> None:
    edit(copied(home, good), lambda m: m.update(fields))


@attack
def manifest_empty(home: Path, good: Path) -> None:
    """Nothing at all."""
    _raw(home, b"")


@attack
def manifest_binary(home: Path, good: Path) -> None:
    """Bytes that are no UTF-8."""
    _raw(home, b"\xff\xfe\x00" * 100)


@attack
def manifest_array(home: Path, good: Path) -> None:
    """JSON of another kind."""
    _raw(home, b"[1, 2]")


@attack
def manifest_deep(home: Path, good: Path) -> None:
    """A hundred thousand objects inside one another."""
    _raw(home, b'{"format_version": 1, "model": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001)


@attack
def manifest_large(home: Path, good: Path) -> None:
    """More bytes than any manifest has."""
    _raw(home, b'{"format_version": 1, "license": "' + b"x" * (17 << 20) + b'"}')


@attack
def manifest_zeros(home: Path, good: Path) -> None:
    """A sparse file of a terabyte."""
    _raw(home, b"{")
    os.truncate(home / EVIL / "manifest.json", 1 << 40)


@attack
def manifest_folder(home: Path, good: Path) -> None:
    """A directory in its place."""
    (home / EVIL / "manifest.json").mkdir(parents=True)


@attack
def manifest_pipe(home: Path, good: Path) -> None:
    """A pipe that nothing is ever written to."""
    (home / EVIL).mkdir()
    os.mkfifo(home / EVIL / "manifest.json")


@attack
def manifest_link(home: Path, good: Path) -> None:
    """A link to a file of the machine."""
    (home / EVIL).mkdir()
    (home / EVIL / "manifest.json").symlink_to("/etc/hostname")


@attack
def manifest_loop(home: Path, good: Path) -> None:
    """A link to itself."""
    (home / EVIL).mkdir()
    (home / EVIL / "manifest.json").symlink_to("manifest.json")


@attack
def version_newer(home: Path, good: Path) -> None:
    """A version of tomorrow, with fields of its own."""
    _set(home, good, format_version=999, invented=True)


@attack
def version_true(home: Path, good: Path) -> None:
    """Python takes True for 1."""
    _set(home, good, format_version=True)


@attack
def number_nan(home: Path, good: Path) -> None:
    """A number that JSON does not have."""
    _text(home, good, '"receptive_field": ', '"parameters": NaN, "receptive_field": ')


@attack
def number_infinite(home: Path, good: Path) -> None:
    """A scale beyond every float."""
    _text(home, good, '"max": ', '"max": 1e999, "was": ')


@attack
def number_long(home: Path, good: Path) -> None:
    """Six thousand digits: turning them into a number takes quadratic time."""
    _text(home, good, '"receptive_field": ', '"receptive_field": ' + "9" * 6000)


@attack
def number_large(home: Path, good: Path) -> None:
    """More parameters than any memory."""
    _set(home, good, parameters=1 << 62)


@attack
def number_in_the_model(home: Path, good: Path) -> None:
    """An integer of 400 bits where the form is free."""
    edit(copied(home, good), lambda m: m["model"].update(width=1 << 400))


@attack
def key_twice(home: Path, good: Path) -> None:
    """Two names: which one counts depends on the parser."""
    _text(home, good, '"name": ', '"name": "good", "name": ')


@attack
def hash_twice(home: Path, good: Path) -> None:
    """Two hashes for one file."""
    _text(home, good, '"sha256": ', f'"sha256": "{"0" * 64}", "sha256": ')


@attack
def key_unknown(home: Path, good: Path) -> None:
    """A field that no version has."""
    _set(home, good, run_at_load="rm -rf")


@attack
def text_long(home: Path, good: Path) -> None:
    """A licence of a megabyte."""
    _set(home, good, license="x" * (1 << 20))


@attack
def text_control(home: Path, good: Path) -> None:
    """A name that clears the terminal."""
    _set(home, good, name="\x1b[2Jphoto")


@attack
def text_surrogate(home: Path, good: Path) -> None:
    """Half of a character."""
    _text(home, good, '"size_rule": ', '"license": "\\ud800", "size_rule": ')


@attack
def model_deep(home: Path, good: Path) -> None:
    """A configuration nested a hundred deep: every parser takes it, not every program."""
    nested: Any = 1
    for _ in range(100):
        nested = {"a": nested}
    edit(copied(home, good), lambda m: m["model"].update(deep=nested))


@attack
def model_wide(home: Path, good: Path) -> None:
    """A configuration of a million values."""
    edit(copied(home, good), lambda m: m["model"].update(wide=[0] * 1_000_000))


@attack
def files_many(home: Path, good: Path) -> None:
    """More files than any bundle has."""
    _listed(home, good, *(f"f/{i}" for i in range(20_000)))


@attack
def files_huge(home: Path, good: Path) -> None:
    """One file of a terabyte, sparse on the disk; hashing it would take an hour."""
    bundle = copied(home, good)
    os.truncate(bundle / "model.safetensors", 1 << 40)
    edit(bundle, lambda m: m["files"]["model.safetensors"].update(bytes=1 << 40))


@attack
def files_huge_together(home: Path, good: Path) -> None:
    """Many files that are just small enough."""
    entry = {**EMPTY, "bytes": 1 << 32}
    edit(copied(home, good), lambda m: m["files"].update(dict.fromkeys(map(str, range(40)), entry)))


@attack
def scale_reversed(home: Path, good: Path) -> None:
    """A range of scales with nothing in it."""
    _set(home, good, scale={"min": 8.0, "max": 1.0})


@attack
def sizes_reversed(home: Path, good: Path) -> None:
    """A range of sizes with nothing in it."""
    _set(home, good, height={"min": 64, "opt": 1, "max": 2})


@attack
def graph_not_listed(home: Path, good: Path) -> None:
    """A graph whose file has no hash."""
    edit(copied(home, good), lambda m: m["graphs"]["onnx"][0].update(path="onnx/other.onnx"))


@attack
def path_parent(home: Path, good: Path) -> None:
    """A file above the bundle."""
    (home / "outside").touch()
    _listed(home, good, "onnx/../../outside")


@attack
def path_absolute(home: Path, good: Path) -> None:
    """A file of the machine."""
    _listed(home, good, "/etc/passwd")


@attack
def path_drive(home: Path, good: Path) -> None:
    """A file of a Windows machine."""
    _listed(home, good, "C:/Windows/win.ini")


@attack
def path_stream(home: Path, good: Path) -> None:
    """An alternate data stream of NTFS."""
    _listed(home, good, "model.safetensors:hidden")


@attack
def path_backslash(home: Path, good: Path) -> None:
    """A parent directory on Windows only."""
    _listed(home, good, "onnx\\..\\..\\outside")


@attack
def path_nul(home: Path, good: Path) -> None:
    """A name that ends early in C."""
    _listed(home, good, "onnx/x\0.txt")


@attack
def path_newline(home: Path, good: Path) -> None:
    """A name that starts a line of its own in a log."""
    _listed(home, good, "x\nerror: all is well")


@attack
def path_reordered(home: Path, good: Path) -> None:
    """A name that reads backwards on a screen."""
    _listed(home, good, "onnx/\u202etxt.exe")


@attack
def path_device(home: Path, good: Path) -> None:
    """A device of Windows."""
    _listed(home, good, "onnx/NUL.onnx")


@attack
def path_dot_at_the_end(home: Path, good: Path) -> None:
    """Windows drops the dot."""
    _listed(home, good, "model.safetensors.")


@attack
def path_empty_part(home: Path, good: Path) -> None:
    """Two slashes."""
    _listed(home, good, "onnx//x")


@attack
def path_case(home: Path, good: Path) -> None:
    """The same file twice where case does not count."""
    _listed(home, good, "MODEL.safetensors")


@attack
def path_composed(home: Path, good: Path) -> None:
    """The same name in two spellings of Unicode."""
    _listed(home, good, "caf\u00e9", "cafe\u0301")


@attack
def path_manifest(home: Path, good: Path) -> None:
    """The manifest's own hash, by another case."""
    _listed(home, good, "Manifest.JSON")


@attack
def path_deep(home: Path, good: Path) -> None:
    """Two hundred directories."""
    _listed(home, good, "/".join("d" * 200))


@attack
def path_long(home: Path, good: Path) -> None:
    """A name longer than systems allow."""
    _listed(home, good, "x" * 500)


@attack
def file_link(home: Path, good: Path) -> None:
    """A listed file that is a link out of the bundle, to a file of the right size."""
    bundle = copied(home, good)
    (bundle / "model.safetensors").rename(home / "outside")
    (bundle / "model.safetensors").symlink_to("../outside")


@attack
def folder_link(home: Path, good: Path) -> None:
    """A directory of listed files that lies elsewhere."""
    bundle = copied(home, good)
    (bundle / "onnx").rename(home / "elsewhere")
    (bundle / "onnx").symlink_to(home / "elsewhere")


@attack
def file_pipe(home: Path, good: Path) -> None:
    """A listed file that is a pipe."""
    bundle = copied(home, good)
    (bundle / "model.safetensors").unlink()
    os.mkfifo(bundle / "model.safetensors")


@attack
def file_device(home: Path, good: Path) -> None:
    """A listed file that never ends."""
    bundle = copied(home, good)
    (bundle / "model.safetensors").unlink()
    (bundle / "model.safetensors").symlink_to("/dev/zero")


@attack
def file_other(home: Path, good: Path) -> None:
    """A file of the right size with one bit turned."""
    path = copied(home, good) / "onnx/fp32/encode.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@attack
def file_longer(home: Path, good: Path) -> None:
    """A file that goes on."""
    with (copied(home, good) / "onnx/fp32/encode.onnx").open("ab") as file:
        file.write(b"more")


@attack
def zip_bomb(home: Path, good: Path) -> None:
    """An archive in place of a bundle, a hundred megabytes when unpacked: archives are not read."""
    with zipfile.ZipFile(home / EVIL, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"0" * (100 << 20))


@attack
def signature_stripped(home: Path, good: Path) -> None:
    """A bundle without the signature that is asked for."""
    from scaleport.bundle.signing import new_key

    copied(home, good)
    new_key(home / "my.key")


@attack
def signature_of_another(home: Path, good: Path) -> None:
    """A signature by the attacker's own key."""
    from scaleport.bundle.signing import new_key, sign_bundle

    bundle = copied(home, good)
    new_key(home / "my.key")
    new_key(home / "attacker.key")
    sign_bundle(bundle, home / "attacker.key")
