"""IPE-MetaSR: MetaSR whose filters follow from the output pixel's square (arXiv 2112.05756).

The paper gives the variant's results only. Here its network reads the integrated encoding of the
pixel, seen from the LR pixel that MetaSR assigns it to, in place of corner and scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scaleport.models.base import Normalisation
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.upsamplers.encoding import axis_code, check_encoding
from scaleport.models.upsamplers.metasr import MetaRender, MetaSR, corner


@UPSAMPLERS.register("ipe-metasr")
class IPEMetaSR(MetaSR):
    """MetaSR on :func:`scaleport.models.upsamplers.encoding.axis_code` of height, then of width.

    454 592 parameters at C = 64.

    Args:
        in_channels: encoder width C.
        hidden: width of the hidden layer.
        bands: octaves L of the encoding.
        radius_unit: ``half`` or ``cell``. An LR pixel's output pixels spread over a whole period
            of the code in ``cell`` units, so that its first and its last are given nearly the same;
            in ``half`` units they spread over half of one.
    """

    def __init__(
        self, in_channels: int, hidden: int = 256, bands: int = 10, radius_unit: str = "half"
    ) -> None:
        check_encoding(bands, radius_unit)
        # Plain values may be set before nn.Module is set up; the base class asks for `inputs`.
        self.bands = bands
        self.radius_unit = radius_unit
        super().__init__(in_channels, hidden)

    @property
    def inputs(self) -> int:
        """Width of the code of a pixel."""
        return 4 * self.bands

    def position(
        self, row_offset: Tensor, col_offset: Tensor, scale_y: Tensor, scale_x: Tensor
    ) -> Tensor:
        """Inputs of the filter network: offsets float[..., Q] to float[..., Q, 4 L]."""
        codes = [
            # The LR pixel that owns the corner is that many steps beyond the centre's index.
            axis_code(offset, -corner(offset, scale)[0], scale, self.bands, self.radius_unit)
            for offset, scale in ((row_offset, scale_y), (col_offset, scale_x))
        ]
        return torch.cat(codes, dim=-1)

    def renderer(self, norm: Normalisation, dtype: torch.dtype) -> MetaRender:
        """Render stage with encoded positions."""
        return IPEMetaRender(self, norm, dtype)


class IPEMetaRender(MetaRender):
    """Rows of ``position``: 2 L values of the code of the height, then those of the width."""

    def __init__(self, upsampler: IPEMetaSR, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__(upsampler, norm, dtype)
        self.bands = upsampler.bands
        self.radius_unit = upsampler.radius_unit

    def table(
        self, axis: int, offset: Tensor, step: Tensor, inside: Tensor, scale: Tensor
    ) -> Tensor:
        """The code of one axis times the columns that read it."""
        del inside
        code = axis_code(offset, -step, scale, self.bands, self.radius_unit)
        values = 2 * self.bands
        out = torch.matmul(code, self.position[axis * values : (axis + 1) * values])
        return out if axis else out + self.bias
