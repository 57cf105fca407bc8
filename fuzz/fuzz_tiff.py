"""TIFF files: classic and BigTIFF, both byte orders."""

from harness import run
from picture_target import of_kind

if __name__ == "__main__":
    run(of_kind((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0\x08\0\0\0"), (0, b"MM\0+\0\x08\0\0")))
