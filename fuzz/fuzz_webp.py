"""WebP files."""

from harness import run
from picture_target import of_kind

if __name__ == "__main__":
    run(of_kind((8, b"WEBP")))
