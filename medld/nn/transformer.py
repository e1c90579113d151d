"""A diffusion transformer on the acquired grid: patches of voxels as tokens, attention in windows of them.

Every other block shifts its windows by half, so that what is known travels; that is also why it takes a scan in one
piece: after a few blocks a token has heard of all others, and no halo would do. It knows no position but relative ones.

Source: Peebles and Xie, "Scalable Diffusion Models with Transformers" (2212.09748), adaLN-Zero; windows as in
`attention.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medld.nn.attention import Triple, WindowAttention, heads_of
from medld.nn.blocks import EPSILON, Conv, Embedding, Linear, Up, dropped
from medld.nn.unet import pad_to_multiples

WIDER = 4
"""Of a block's inner layer, in widths."""


class Transformer(nn.Module):
    """Patches, blocks, patches; the output starts at zero, so an untrained net changes nothing.

    Args:
        inputs: Channels that it is shown.
        outputs: Channels of its answer.
        features: What it is told of the scan, and of the time.
        width: Channels of a token.
        depth: Blocks.
        patch: Voxels of a token along each axis.
        window: Tokens of a window along each axis.
        embedding: Width of what it makes of the features.
        output_scale: About the size of the wanted output, see `blocks.IMAGE_SCALE`.
        dropout: See `TransformerBlock`.
    """

    tileable = False

    def __init__(
        self,
        inputs: int,
        outputs: int,
        features: int,
        width: int = 256,
        depth: int = 7,
        patch: Triple = (4, 4, 2),
        window: Triple = (8, 8, 4),
        embedding: int = 128,
        output_scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.patch, self.output_scale = patch, output_scale
        self.embed = Embedding(features, embedding)
        self.stem = Conv(inputs, width, patch, stride=patch)
        half = (window[0] // 2, window[1] // 2, window[2] // 2)
        shifts = [half if index % 2 else (0, 0, 0) for index in range(depth)]
        self.blocks = nn.ModuleList(TransformerBlock(width, embedding, window, shift, dropout) for shift in shifts)
        self.steer = _zeroed(Linear(embedding, 2 * width))
        self.head = Up(width, outputs, patch)
        nn.init.zeros_(self.head.conv.weight)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(B, inputs, I, J, K) and (B, features) to (B, outputs, I, J, K), in the precision of `x`."""
        rows, columns, slices = x.shape[-3:]
        embedding = self.embed(features.to(x.dtype))
        tokens = self.stem(pad_to_multiples(x, self.patch)).permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            tokens = block(tokens, embedding)
        tokens = _steered(tokens, *_pieces(self.steer(embedding), 2))
        answer = self.head(tokens.permute(0, 4, 1, 2, 3))[..., :rows, :columns, :slices]
        return self.output_scale * answer  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Attention, then two layers for each token alone; gates that begin closed make it start as the identity.

    `dropout` is the share of the numbers before its last layer that are zeroed in training.
    """

    def __init__(self, width: int, embedding: int, window: Triple, shift: Triple, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.steer = _zeroed(Linear(embedding, 6 * width))
        self.attention = WindowAttention(width, heads_of(width), window, shift=shift, zero=False)
        self.inner = Linear(width, WIDER * width)
        self.outer = Linear(WIDER * width, width)

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """(B, I, J, K, C) and (B, E) to (B, I, J, K, C)."""
        gain, shift, gate, inner_gain, inner_shift, inner_gate = _pieces(self.steer(embedding), 6)
        tokens = torch.addcmul(tokens, gate, self.attention(_steered(tokens, gain, shift)))
        inner = functional.gelu(self.inner(_steered(tokens, inner_gain, inner_shift)), approximate="tanh")
        return torch.addcmul(tokens, inner_gate, self.outer(dropped(inner, self.dropout, self.training)))


def _steered(tokens: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """norm(x) (1 + gain) + shift, the norm over a token's channels."""
    return torch.addcmul(shift, functional.layer_norm(tokens, tokens.shape[-1:], eps=EPSILON), 1 + gain)


def _pieces(steering: Tensor, count: int) -> tuple[Tensor, ...]:
    """(B, count C) as `count` tensors against tokens (B, I, J, K, C)."""
    return steering[:, None, None, None].chunk(count, dim=-1)


def _zeroed(layer: Linear) -> Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
