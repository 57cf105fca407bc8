"""SwinIR: residual groups of shifted-window transformer blocks (arXiv 2108.10257)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import PaddingKind
from scaleport.models.encoders.windowed import Attention, WindowedEncoder
from scaleport.models.registry import ENCODERS


class WindowAttention(Attention):
    """Every token of a window attends to all of them."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__(width, heads, window)
        self.qkv = nn.Linear(width, 3 * width)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, float[B, heads, window^2, d] each."""
        b, t, c = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return qkv[0], qkv[1], qkv[2]

    def scaled_rows(self) -> tuple[Tensor, ...]:
        """The first third of the joint projection."""
        width = self.qkv.in_features
        return self.qkv.weight[:width], self.qkv.bias[:width]


class MLP(nn.Module):
    """``Linear(GELU(Linear(x)))`` of every pixel; ``approximate="tanh"`` for that formula of it."""

    def __init__(self, width: int, hidden: int, approximate: str = "none") -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate=self.approximate))
        return out


@ENCODERS.register("swinir")
class SwinIR(WindowedEncoder):
    """SwinIR without its upsampler, to the long skip around the deep features.

    The defaults are the published lightweight network: 903 660 parameters. The classical one has
    ``width=180, depths=[6, 6, 6, 6, 6, 6]``: 11 499 300 parameters, without the convolution that
    precedes some of its upsamplers.

    Args:
        width: channels.
        depths: blocks of each group; every other block has shifted windows.
        heads: attention heads.
        window: side of a window in pixels, even.
        mlp_ratio: hidden channels of the MLPs by ``width``.
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
        window: int = 8,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.1,
        padding: PaddingKind = "reflect",
    ) -> None:
        self.check("swinir", width, depths, heads, mlp_ratio)
        if window < 2:
            raise UsageError("swinir needs a window of at least 2")

        def make() -> tuple[Attention, nn.Module]:
            return WindowAttention(width, heads, window), MLP(width, int(width * mlp_ratio))

        super().__init__("swinir", width, depths, heads, window, drop_path, make, window, padding)
