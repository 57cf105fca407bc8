"""MambaIRv2-light: windowed attention and an attentive state-space scan (Guo et al. 2024).

Source: arXiv 2411.15269, sections on the attentive state-space equation and semantic guided
neighbouring, with the details of the authors' code for the light model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import Padding, Tiling
from scaleport.models.encoders.hit import HiTBlock, TokenEncoder, start_linear
from scaleport.models.encoders.swinir import WindowAttention
from scaleport.models.encoders.windowed import MASKED, rolled, strangers
from scaleport.models.layers import LayerNorm, join_windows, split_windows
from scaleport.models.registry import ENCODERS
from scaleport.models.scan import selective_scan
from scaleport.models.scan_graph import scan_in_lanes

_NO_LOOPS = (
    "a selective scan is a recurrence over all pixels of the image: Core ML's converter takes no "
    "loop of a length that is not known in advance, and TensorRT for RTX 1.7 crashes on one"
)
REFUSED_SCAN: Mapping[str, str] = MappingProxyType({"tensorrt": _NO_LOOPS, "coreml": _NO_LOOPS})
SCANNED = Tiling("approximate", "the scan runs through all pixels that are given in one call")


class GatedFeedForward(nn.Module):
    """``Linear, GELU``, one half times ``depthwise 5x5(norm(other half))``, ``Linear``."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = int(width * ratio)
        if hidden < 2 or hidden % 2:
            raise UsageError(f"mlp_ratio {ratio} must leave an even number of hidden channels")
        self.expand = nn.Linear(width, hidden)
        self.norm = LayerNorm(hidden // 2)
        self.depthwise = nn.Conv2d(hidden // 2, hidden // 2, 5, padding=2, groups=hidden // 2)
        self.reduce = nn.Linear(hidden // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        kept, gate = functional.gelu(self.expand(x)).chunk(2, dim=-1)
        gate = self.depthwise(self.norm(gate).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.reduce(kept * gate)
        return out


class ShiftedAttention(nn.Module):
    """Attention in windows of a map of whole windows, which may be shifted by half a window."""

    by_rows: Tensor
    by_cols: Tensor

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.attention = WindowAttention(width, heads, window)
        by_rows, by_cols = strangers(window, window - shift, window, window - shift)
        self.register_buffer("by_rows", by_rows, persistent=False)
        self.register_buffer("by_cols", by_cols, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        n, down, across = x.shape[0], x.shape[1] // self.window, x.shape[2] // self.window
        if not self.shift:
            windows = self.attention(split_windows(x, self.window, down, across), None)
            return join_windows(windows, n, self.window, down, across)
        windows = split_windows(rolled(x, self.shift), self.window, down, across)
        windows = self.attention(windows, self._mask(n, down, across))
        return rolled(join_windows(windows, n, self.window, down, across), -self.shift)

    def _mask(self, n: int, down: int, across: int) -> Tensor:
        """float[n * down * across, 1, L, L]: what rolling brought together in the last windows."""
        row = torch.arange(n * down, device=self.by_rows.device, dtype=torch.int32)
        col = torch.arange(across, device=self.by_rows.device, dtype=torch.int32)
        row = torch.remainder(row, torch.full_like(row, down))
        last_row = torch.eq(row, torch.full_like(row, down - 1)).to(self.by_rows.dtype)
        last_col = torch.eq(col, torch.full_like(col, across - 1)).to(self.by_cols.dtype)
        by_rows = last_row[:, None, None, None] * self.by_rows
        by_cols = last_col[None, :, None, None] * self.by_cols
        mask = torch.maximum(by_rows, by_cols) * MASKED
        return mask.reshape(n * down * across, 1, *self.by_rows.shape)


class AttentiveScan(nn.Module):
    """State-space part: pixels are sorted by a learnt class, then scanned in that order.

    A class also names a prompt, a product of two small tables, which is added to what the scan
    reads with. As in the authors' code the prompts stay in the order of the image while the pixels
    are sorted. The class is drawn at random by the authors' code, in use as well; here that holds
    for training only, and the most likely class is taken otherwise, ties to the first, with equal
    classes in the order of the image: results must not change from run to run.
    """

    def __init__(self, width: int, states: int, rank: int, tokens: int, ratio: float) -> None:
        super().__init__()
        inner = int(width * ratio)
        step_rank = math.ceil(inner / 16)
        self.states, self.step_rank = states, step_rank
        self.project_in = nn.Conv2d(width, inner, 1)
        self.gate = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.route = nn.Sequential(
            nn.Linear(width, width // 3), nn.GELU(), nn.Linear(width // 3, tokens)
        )
        self.prompt_classes = nn.Parameter(torch.empty(tokens, rank).uniform_(-1, 1) / tokens)
        self.prompt_states = nn.Parameter(torch.empty(rank, states).uniform_(-1, 1) / rank)
        self.select = nn.Linear(inner, step_rank + 2 * states, bias=False)
        self.step = nn.Linear(step_rank, inner)
        self.log_decay = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.norm = LayerNorm(inner)
        self.project_out = nn.Linear(inner, width)
        self.lane = 0
        """Tokens of a lane in the deploy form; 0: this is the training form."""

    def start(self) -> None:
        """Published start: step widths between 0.001 and 0.1, evenly in the logarithm."""
        self.select.reset_parameters()
        bound = self.step_rank**-0.5
        nn.init.uniform_(self.step.weight, -bound, bound)
        low, high = math.log(0.001), math.log(0.1)
        with torch.no_grad():
            width = torch.exp(torch.rand_like(self.step.bias) * (high - low) + low)
            self.step.bias.copy_(width + torch.log(-torch.expm1(-width)))

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        n, height, width, channels = x.shape
        logits = self.route(x.reshape(n, height * width, channels))
        table = self.prompt_classes @ self.prompt_states
        if self.training:
            chosen = functional.gumbel_softmax(functional.log_softmax(logits, -1), hard=True)
            kind, prompt = chosen.detach().argmax(dim=-1), chosen @ table
        else:
            kind = logits.argmax(dim=-1)
            prompt = table[kind]

        u = self.project_in(x.permute(0, 3, 1, 2))
        u = (u * torch.sigmoid(self.gate(u))).flatten(2).transpose(1, 2)
        if self.lane:
            rank = places_by_class(kind, table.shape[0])
            y = picked_rows(self._scanned(picked_rows(u, inverted(rank)), prompt), rank)
        else:
            order = kind.sort(dim=-1, stable=True).indices
            y = self._scanned(u.gather(1, order[..., None].expand_as(u)), prompt)
            y = y.gather(1, order.argsort(dim=-1)[..., None].expand_as(y))
        out: Tensor = y.reshape(n, height, width, channels)
        return out

    def _scanned(self, u: Tensor, prompt: Tensor) -> Tensor:
        """Sorted tokens float[N, L, inner] to float[N, L, width]."""
        step, drive, read = self.select(u).split([self.step_rank, self.states, self.states], -1)
        delta = functional.softplus(self.step(step))
        values = (u, delta, -self.log_decay.exp(), drive, read + prompt, self.skip)
        y = scan_in_lanes(*values, self.lane) if self.lane else selective_scan(*values)
        out: Tensor = self.project_out(self.norm(y))
        return out


def places_by_class(kind: Tensor, classes: int) -> Tensor:
    """Place of every token when tokens are sorted by class, equal ones in order: int64[N, L].

    By counting, as a graph's sort of a long list is slow, and not stable in every runtime. Counts
    are exact in float32 up to 16 million tokens.
    """
    known = torch.arange(classes, device=kind.device)
    member = torch.eq(kind[..., None], known).float()
    upto = member.cumsum(dim=1)
    totals = member.sum(dim=1, keepdim=True)
    first = totals.cumsum(dim=2) - totals
    return (((upto + first) * member).sum(dim=2) - 1).long()


def inverted(places: Tensor) -> Tensor:
    """The permutations int64[N, L] that undo those of ``places``."""
    count = torch.arange(places.shape[1], device=places.device)[None].expand_as(places)
    return torch.zeros_like(places).scatter(1, places, count)


def picked_rows(x: Tensor, places: Tensor) -> Tensor:
    """Tokens float[N, L, C] at ``places`` int64[N, L], as whole rows."""
    n, length, width = x.shape
    image = torch.arange(n, device=x.device)[:, None] * length
    rows = x.reshape(n * length, width).index_select(0, (places + image).flatten())
    return rows.reshape(n, length, width)


def scan_by_lanes(encoder: nn.Module, lane: int) -> None:
    """Turn the scans of an encoder into their deploy form, with lanes of so many tokens."""
    for module in encoder.modules():
        if isinstance(module, AttentiveScan):
            module.lane = lane
        elif isinstance(module, ShiftedAttention):
            module.attention.freeze()


class ScanHalf(nn.Module):
    """``y = x + scan(norm x)``, ``y + feed-forward(norm y) + s x``."""

    def __init__(self, width: int, states: int, rank: int, tokens: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.scan = AttentiveScan(width, states, rank, tokens, mlp_ratio)
        self.norm2 = LayerNorm(width)
        self.mlp = GatedFeedForward(width, mlp_ratio)
        self.scale = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        y = x + self.scan(self.norm1(x))
        y = y + self.mlp(self.norm2(y))
        out: Tensor = y + self.scale * x
        return out


class MixedLayer(nn.Module):
    """``y = x + mix(norm x)``, ``y + feed-forward(norm y) + s x``, then a :class:`ScanHalf`.

    Args:
        mix: from float[N, H, W, width] to the same shape: attention, or a correlation.
        width: channels.
        mlp_ratio: hidden channels per channel of both feed-forward parts, and of the scan.
        states: states per channel of the scan.
        rank: inner rank of the prompts.
        tokens: classes of pixels.
    """

    def __init__(
        self,
        mix: nn.Module,
        width: int,
        mlp_ratio: float = 1.0,
        states: int = 8,
        rank: int = 32,
        tokens: int = 64,
    ) -> None:
        super().__init__()
        if width < 3 or min(states, rank, tokens) < 1:
            raise UsageError("a scan needs a width of at least 3 and states, rank, tokens of 1")
        self.norm1 = LayerNorm(width)
        self.mix = mix
        self.norm2 = LayerNorm(width)
        self.mlp = GatedFeedForward(width, mlp_ratio)
        self.scale = nn.Parameter(torch.full((width,), 1e-4))
        self.second = ScanHalf(width, states, rank, tokens, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        y = x + self.mix(self.norm1(x))
        y = y + self.mlp(self.norm2(y))
        out: Tensor = self.second(y + self.scale * x)
        return out


def start_scans(encoder: nn.Module) -> None:
    """Published start of an encoder's linear layers, which is another one within its scans."""
    encoder.apply(start_linear)
    for module in encoder.modules():
        if isinstance(module, AttentiveScan):
            module.start()


@ENCODERS.register("mambairv2")
class MambaIRv2(TokenEncoder):
    """MambaIRv2-light body.

    768 896 parameters (774 092 with SPConv x2).

    The image is continued to whole windows by mirroring with the last row and column repeated, as
    published. Pixels get the most likely class in use (see :class:`AttentiveScan`). Published with
    images minus the mean (0.4488, 0.4371, 0.4040).

    Args:
        width: channels, published 48.
        depths: layers of each residual block; windows of every other layer are shifted.
        heads: attention heads; they divide ``width``.
        window: side of a window, even.
        mlp_ratio: hidden channels per channel.
        states: states per channel of the scan.
        rank: inner rank of the prompts.
        tokens: classes of pixels.
    """

    tiling = SCANNED
    refused_formats: Mapping[str, str] = REFUSED_SCAN
    float32_parts = "selective scan, places of the sorted pixels"
    rewrites: tuple[str, ...] = (
        "position biases gathered, scale folded in",
        "selective scan in lanes, sorted by counting",
    )

    def __init__(
        self,
        width: int = 48,
        depths: tuple[int, ...] | list[int] = (5, 5, 5, 5),
        heads: int = 4,
        window: int = 16,
        mlp_ratio: float = 1.0,
        states: int = 8,
        rank: int = 32,
        tokens: int = 64,
    ) -> None:
        if not depths or any(type(depth) is not int or depth < 1 for depth in depths):
            raise UsageError("mambairv2 needs depths of at least 1 for one block or more")
        if heads < 1 or width < 1 or width % heads or window < 2 or window % 2:
            raise UsageError("mambairv2 needs heads that divide its width and an even window")

        def layer(shift: int) -> nn.Module:
            mix = ShiftedAttention(width, heads, window, shift)
            return MixedLayer(mix, width, mlp_ratio, states, rank, tokens)

        super().__init__(
            width,
            [
                HiTBlock([layer(window // 2 if i % 2 else 0) for i in range(depth)], width)
                for depth in depths
            ],
        )
        self.padding = Padding(window, "mirror")
        self.tile_step = window
        start_scans(self)

    def deploy(self) -> nn.Module:
        """The same with scans in lanes of a window's tokens, which whole windows always fill."""
        scan_by_lanes(self, self.padding.multiple**2)
        return self
