"""Errors of libvips that quote bytes of a file."""

from __future__ import annotations

from scaleport.imaging.vips import libvips


def test_an_error_may_quote_bytes_that_are_no_utf8():
    vips = libvips()
    quoted = vips.ffi.new("char[]", b"tag \xb3 is unknown")
    assert vips.error._to_string(quoted) == "tag \\xb3 is unknown"
    assert vips.error._to_string(vips.ffi.NULL) == "NULL"
