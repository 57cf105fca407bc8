"""PBM, PGM, PPM, PAM and PFM files."""

from harness import run
from picture_target import of_kind

if __name__ == "__main__":
    run(of_kind(*((0, magic) for magic in b"P1 P2 P3 P4 P5 P6 P7 PF Pf".split())))
