"""Image files: the input is a file, whatever it claims to be."""

from harness import run
from picture_target import decode

if __name__ == "__main__":
    run(decode)
