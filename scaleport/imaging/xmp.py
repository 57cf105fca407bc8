"""XMP packets that stay true of a picture that was turned upright and made larger.

What is changed: orientation, sizes in pixels, sizes of panoramas and of regions. What points to
data that an upscaled file does not hold is removed: gain maps, videos of motion photos, depth maps.
Everything else stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final
from xml.dom import Node, minidom
from xml.parsers.expat import ExpatError

_TIFF: Final = "http://ns.adobe.com/tiff/1.0/"
_EXIF: Final = "http://ns.adobe.com/exif/1.0/"
_PANORAMA: Final = "http://ns.google.com/photos/1.0/panorama/"
_REGIONS: Final = "http://www.metadataworkinggroup.com/schemas/regions/"
_DIMENSIONS: Final = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_GAIN_MAPS: Final = ("http://ns.adobe.com/hdr-gain-map/1.0/", "http://ns.apple.com/HDRGainMap/1.0/")
_CONTAINER: Final = "http://ns.google.com/photos/1.0/container/"
_CAMERA: Final = "http://ns.google.com/photos/1.0/camera/"
_DEPTH: Final = (
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/image/",
)
_NOTE: Final = "http://ns.adobe.com/xmp/note/"
_KNOWN: Final = (
    _TIFF,
    _EXIF,
    _PANORAMA,
    _REGIONS,
    *_GAIN_MAPS,
    _CONTAINER,
    _CAMERA,
    *_DEPTH,
    _NOTE,
)
_MOST: Final = 2 << 20

Property = minidom.Attr | minidom.Element

_ACROSS: Final = (
    "FullPanoWidthPixels",
    "CroppedAreaImageWidthPixels",
    "CroppedAreaLeftPixels",
    "LargestValidInteriorRectLeft",
    "LargestValidInteriorRectWidth",
)
_DOWN: Final = (
    "FullPanoHeightPixels",
    "CroppedAreaImageHeightPixels",
    "CroppedAreaTopPixels",
    "LargestValidInteriorRectTop",
    "LargestValidInteriorRectHeight",
)


@dataclass(frozen=True)
class Packet:
    """A packet that was made true.

    Attributes:
        data: the packet; None if it cannot be read and has to go.
        left_out: what was removed from it, for people.
    """

    data: bytes | None
    left_out: tuple[str, ...] = ()


def make_true(
    packet: bytes, turned: bool, before: tuple[int, int] | None, after: tuple[int, int]
) -> Packet:
    """Change what a packet says about its picture to what holds for the output.

    Args:
        packet: XMP as files hold it.
        turned: whether the picture was turned or mirrored to be upright.
        before: height and width of the upright source; None if the packet is not of a source.
        after: height and width of the output.
    """
    packet = packet.rstrip(b"\0")
    if not any(name.encode() in packet for name in _KNOWN) and b"\0" not in packet:
        return Packet(packet)
    # A document type could declare entities; XMP has none.
    if len(packet) > _MOST or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return Packet(None, ("an XMP block that cannot be read",))
    try:
        document = minidom.parseString(packet)
        return _edited(document, turned, before or after, after)
    except (ExpatError, ValueError, LookupError, RecursionError):
        return Packet(None, ("an XMP block that cannot be read",))


def _edited(
    document: minidom.Document, turned: bool, before: tuple[int, int], after: tuple[int, int]
) -> Packet:
    height, width = after
    sizes: dict[tuple[str | None, str | None], int] = {
        (_TIFF, "ImageWidth"): width,
        (_EXIF, "PixelXDimension"): width,
        (_TIFF, "ImageLength"): height,
        (_EXIF, "PixelYDimension"): height,
    }
    left_out: dict[str, None] = {}
    for node in _properties(document):
        place, name = node.namespaceURI, node.localName
        what = _misfit(place, name) if turned else None
        what = what or _pointing(place, name)
        if what is not None:
            left_out[what] = None
            _remove(node)
        elif (place, name) == (_TIFF, "Orientation"):
            if turned:
                _set(node, "1")
        elif (place, name) in sizes:
            _set(node, str(sizes[place, name]))
        elif place == _PANORAMA and name in _ACROSS:
            _scale(node, width, before[1])
        elif place == _PANORAMA and name in _DOWN:
            _scale(node, height, before[0])
        elif (place, name) == (_REGIONS, "AppliedToDimensions"):
            _set_dimensions(node, height, width)
    return Packet(document.toxml(encoding="utf-8").split(b"?>", 1)[1], tuple(left_out))


def _misfit(place: str | None, name: str | None) -> str | None:
    """What a property states that does not hold of a picture that was turned."""
    if place == _PANORAMA:
        return "panorama data, which do not fit a picture that was turned"
    if (place, name) == (_REGIONS, "Regions"):
        return "marked regions, which do not fit a picture that was turned"
    return None


def _pointing(place: str | None, name: str | None) -> str | None:
    """What a property points to that an upscaled file does not hold."""
    if place in _GAIN_MAPS:
        return "a gain map (HDR)"
    if place == _CONTAINER:
        return "what the file lists besides its main picture"
    if place == _CAMERA and name and name.startswith(("MicroVideo", "MotionPhoto")):
        return "the video of a motion photo"
    if place in _DEPTH:
        return "a depth map"
    return "the extended XMP block" if (place, name) == (_NOTE, "HasExtendedXMP") else None


def _properties(document: minidom.Document) -> list[Property]:
    """Attributes and elements of the name spaces that are looked at; outer ones first."""
    found: list[Property] = []
    for element in document.getElementsByTagName("*"):
        attributes = [element.attributes.item(i) for i in range(element.attributes.length)]
        nodes: list[Property] = [element]
        nodes += [a for a in attributes if isinstance(a, minidom.Attr)]
        found += [node for node in nodes if node.namespaceURI in _KNOWN]
    return found


def _remove(node: Property) -> None:
    if isinstance(node, minidom.Attr):
        if node.ownerElement is not None:
            node.ownerElement.removeAttributeNode(node)
    elif node.parentNode is not None:
        node.parentNode.removeChild(node)


def _text(node: Property) -> str:
    if isinstance(node, minidom.Attr):
        return str(node.value)
    return "".join(c.data for c in node.childNodes if c.nodeType == Node.TEXT_NODE)


def _set(node: Property, value: str) -> None:
    if isinstance(node, minidom.Attr):
        node.value = value
        return
    for child in list(node.childNodes):
        node.removeChild(child)
    assert node.ownerDocument is not None
    node.appendChild(node.ownerDocument.createTextNode(value))


def _scale(node: Property, after: int, before: int) -> None:
    value = float(_text(node))
    if not math.isfinite(value):
        raise ValueError(f"{value} pixels")
    _set(node, str(math.floor(value * after / before + 0.5)))


def _set_dimensions(node: Property, height: int, width: int) -> None:
    if isinstance(node, minidom.Attr):
        return
    for name, value in (("w", width), ("h", height)):
        attribute = node.getAttributeNodeNS(_DIMENSIONS, name)
        if attribute is not None:
            attribute.value = str(value)
        for element in node.getElementsByTagNameNS(_DIMENSIONS, name):
            _set(element, str(value))
