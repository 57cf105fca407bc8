"""SRFormer: attention with permuted, and so fewer, keys in large windows (arXiv 2303.09735)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import PaddingKind
from scaleport.models.encoders.windowed import Attention, WindowedEncoder
from scaleport.models.registry import ENCODERS

FOLD = 2
"""Side of the squares of pixels that become one key."""


class PermutedAttention(Attention):
    """Every token of a window attends to keys of 2x2 tokens each.

    Keys and values have a quarter of the channels per token; those of 2x2 tokens side by side,
    in reading order, make up one key.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__(width, heads, window // FOLD, FOLD)
        self.keys = window // FOLD
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, width // 2)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries float[B, heads, window^2, d]; keys, values float[B, heads, window^2 / 4, d]."""
        b, t, c = x.shape
        query = self.q(x).reshape(b, t, self.heads, c // self.heads).transpose(1, 2)
        # Rank 5 at most, for Core ML: the batch and the rows of keys share a dimension.
        kv = self.kv(x).reshape(b * self.keys, FOLD, self.keys, FOLD, c // 2)
        kv = kv.permute(0, 2, 1, 3, 4).reshape(b, self.keys * self.keys, FOLD * FOLD, 2, c // 4)
        kv = kv.permute(3, 0, 1, 2, 4).reshape(2, b, -1, self.heads, c // self.heads)
        kv = kv.transpose(2, 3)
        return query, kv[0], kv[1]

    def scaled_rows(self) -> tuple[Tensor, ...]:
        """The projection of the queries."""
        return self.q.weight, self.q.bias


class ConvFFN(nn.Module):
    """``Linear(y + GELU(depthwise 5x5(y)))`` with ``y = GELU(Linear(x))``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        y = functional.gelu(self.fc1(x))
        near = functional.gelu(self.depthwise(y.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        out: Tensor = self.fc2(y + near)
        return out


@ENCODERS.register("srformer")
class SRFormer(WindowedEncoder):
    """SRFormer without its upsampler, to the long skip around the deep features.

    The defaults are the published lightweight network: 846 780 parameters. The classical one of
    the IGConv paper has ``width=180, depths=[6, 6, 6, 6, 6, 6], window=22``: 10 123 596
    parameters.

    Args:
        width: channels, a multiple of 4.
        depths: blocks of each group; every other block has shifted windows.
        heads: attention heads.
        window: side of a window in pixels, even.
        mlp_ratio: hidden channels of the ConvFFNs by ``width``.
        drop_path: stochastic depth in training.
        padding: how images are continued to whole windows: ``reflect`` as the authors' network
            does, ``mirror``, or ``test-script`` as SwinIR's test script does before it calls the
            network, see :class:`scaleport.models.base.Padding`.
    """

    def __init__(
        self,
        width: int = 60,
        depths: list[int] | tuple[int, ...] = (6, 6, 6, 6),
        heads: int = 6,
        window: int = 16,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.1,
        padding: PaddingKind = "reflect",
    ) -> None:
        self.check("srformer", width, depths, heads, mlp_ratio)
        if window < 2 or window % FOLD:
            raise UsageError("srformer needs an even window of at least 2")
        if width % (FOLD * FOLD):
            raise UsageError("srformer needs a width that is a multiple of 4")

        def make() -> tuple[Attention, nn.Module]:
            return PermutedAttention(width, heads, window), ConvFFN(width, int(width * mlp_ratio))

        keys = window // FOLD
        super().__init__("srformer", width, depths, heads, window, drop_path, make, keys, padding)
