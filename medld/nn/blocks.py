"""Building blocks: a residual block that is normalised per voxel and steered by an embedding.

Statistics are taken over the channels of one voxel, never over space, so a tile computes what the
whole volume would. Activations keep the precision they come in and weights follow it: float32
masters serve bfloat16 activations in training, and are cast once and for all when a model is loaded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-4
"""Below it a voxel counts as empty: background stays quiet instead of being scaled up to tissue."""


def normalise(x: Tensor) -> Tensor:
    """`x` (B, C, I, J, K) with mean zero and deviation one over the channels of each voxel.

    Layer norm on the channels-last view: on CPUs it takes a tenth of the time of a root mean square by hand.
    """
    channels_last = x.permute(0, 2, 3, 4, 1)
    return functional.layer_norm(channels_last, (x.shape[1],), eps=EPSILON).permute(0, 4, 1, 2, 3)


IMAGE_SCALE = 0.1
"""Factor behind heads that answer with a correction to an image, which is about that large in network units.

Adam moves all weights of a head at once: unscaled, one step would shift the image by more than the correction.
"""


def spent(x: Tensor) -> Tensor | None:
    """`x` to be written over by what is made of it; None, for memory of its own, where a gradient may ask for `x`.

    SiLU into new memory took four times as long (.90 s against .20 of a restoration of 7 million voxels on two cores).
    """
    return None if torch.is_grad_enabled() else x


def dropped(x: Tensor, share: float, training: bool) -> Tensor:
    """`x` with a `share` of its numbers zeroed and the rest divided by 1 - share: its mean stays.

    Only in `training`, from torch's global generator of the device; of no share, nothing is drawn.
    """
    return functional.dropout(x, share) if share > 0 and training else x


def told_apart(x: Tensor) -> Tensor:
    """`x` (B, 1, I, J, K) with the strides of channels-last: of one channel both layouts are the same in memory, and
    convolution takes it for the slow one, to which it then turns all of its answer."""
    _, _, rows, columns, slices = x.shape
    return x.contiguous().as_strided(x.shape, (rows * columns * slices, 1, columns * slices, slices, 1))


class Conv(nn.Conv3d):
    """A convolution whose weights follow the precision of its input; 3x3x3 with zero padding unless said."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int, int] = 3,
        *,
        zero: bool = False,
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=1 if kernel == 3 else 0)
        if zero:
            nn.init.zeros_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, padding: tuple[int, int, int] | None = None) -> Tensor:
        """(B, inputs, I, J, K) to (B, outputs, I', J', K'); `padding` replaces its own."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        x = told_apart(x) if x.shape[1] == 1 else x
        return functional.conv3d(x, self.weight.to(x.dtype), bias, self.stride, padding or self.padding)


class Linear(nn.Linear):
    """A linear layer whose weights follow the precision of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.weight.to(x.dtype), bias)


class Embedding(nn.Module):
    """What the network is told about the scan, as one vector."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.inner = Linear(features, width)
        self.outer = Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, features) to (B, width)."""
        return functional.silu(self.outer(functional.silu(self.inner(features))))


class Block(nn.Module):
    """x + conv_b(drop(SiLU(conv_a(norm(x)(1+g0)+h0)(1+g)+h))); starts as the identity.

    Args:
        channels: C.
        embedding: E.
        dropout: Share of the numbers before conv_b that are zeroed in training, the others growing to make up for it.
            Source: Srivastava et al. 2014; its place as in Dhariwal and Nichol (2105.05233).
        normalised: Whether there is a norm; without one, norm(x) is x.
    """

    def __init__(self, channels: int, embedding: int, dropout: float = 0.0, *, normalised: bool = True) -> None:
        super().__init__()
        self.dropout, self.normalised = dropout, normalised
        self.steer = Linear(embedding, 4 * channels)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)
        self.conv_a = Conv(channels, channels)
        self.conv_b = Conv(channels, channels, zero=True)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, I, J, K) and (B, E) to (B, C, I, J, K)."""
        steering = self.steering(embedding)
        inner = self.conv_a(self.before(steering, x))
        change = self.conv_b(self.between(steering, inner))
        del inner
        return torch.add(x, change, out=spent(change))

    def steering(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """g0, h0, g and h, each (B, C, 1, 1, 1)."""
        return self.steer(embedding)[:, :, None, None, None].chunk(4, dim=1)  # type: ignore[no-any-return]

    def before(self, steering: tuple[Tensor, ...], x: Tensor, out: Tensor | None = None) -> Tensor:
        """What conv_a gets; voxel by voxel, into `out` if that is given."""
        g0, h0, _, _ = steering
        if not self.normalised:
            return torch.addcmul(h0, x, 1 + g0, out=out)
        normal = normalise(x)
        return torch.addcmul(h0, normal, 1 + g0, out=spent(normal) if out is None else out)

    def between(self, steering: tuple[Tensor, ...], inner: Tensor, out: Tensor | None = None) -> Tensor:
        """What conv_b gets of conv_a's answer, which is spent; voxel by voxel, into `out` if that is given."""
        _, _, g, h = steering
        steered = torch.addcmul(h, inner, 1 + g, out=spent(inner) if out is None else out)
        in_place = out is not None or not torch.is_grad_enabled()
        return dropped(functional.silu(steered, inplace=in_place), self.dropout, self.training)


class Blocks(nn.ModuleList):
    """Several blocks in a row."""

    def __init__(
        self, channels: int, count: int, embedding: int, dropout: float = 0.0, *, normalised: bool = True
    ) -> None:
        super().__init__(Block(channels, embedding, dropout, normalised=normalised) for _ in range(count))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, I, J, K) and (B, E) to (B, C, I, J, K)."""
        for block in self:
            x = block(x, embedding)
        return x


class Up(nn.Module):
    """1x1x1 convolution and pixel shuffle: the inverse of a convolution with kernel = stride."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.stride = stride
        self.conv = Conv(inputs, outputs * stride[0] * stride[1] * stride[2], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, I, J, K) to (B, outputs, I s0, J s1, K s2)."""
        si, sj, sk = self.stride
        batch, _, rows, columns, slices = x.shape
        # One copy, and that into the layout which comes next.
        x = self.conv(x).permute(0, 2, 3, 4, 1).reshape(batch, rows, columns, slices, -1, si, sj, sk)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, rows * si, columns * sj, slices * sk, -1)
        return x.permute(0, 4, 1, 2, 3)
