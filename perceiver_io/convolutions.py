"""Convolutions with the reference's conventions: SAME padding, batch norm, down- and upsampling.

Images are [batch, channels, height, width] and videos [batch, time, channels, height, width], as PyTorch has them.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.initializers import haiku_default_

Images = Float[Tensor, "batch channels height width"]
Videos = Float[Tensor, "batch time channels height width"]
OutImages = Float[Tensor, "batch out_channels out_height out_width"]
OutVideos = Float[Tensor, "batch out_time out_channels out_height out_width"]


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Maps the size of an axis to TensorFlow's SAME padding of it, (before, after); the odd one goes after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def pad_same(images: Images, kernel_size: Sequence[int], stride: Sequence[int], value: float = 0.0) -> OutImages:
    """Pads images so that an unpadded window of these sizes yields ceil(size / stride) outputs per axis."""
    rows = same_padding(images.shape[-2], kernel_size[0], stride[0])
    columns = same_padding(images.shape[-1], kernel_size[1], stride[1])
    return F.pad(images, (*columns, *rows), value=value)


class ZeroDebiasedAverage(nn.Module):
    """Running average of a statistic that is unbiased from its first value on.

    `hidden` decays from zero; dividing by `1 - decay**counter` removes the bias. Both are state, as in Haiku, so that a
    converted model goes on training as it would have. Source: `haiku.ExponentialMovingAverage`.
    """

    average: Tensor
    hidden: Tensor
    counter: Tensor

    def __init__(self, num_channels: int, *, decay: float, initial: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("average", torch.full((num_channels,), initial))
        self.register_buffer("hidden", torch.zeros(num_channels))
        self.register_buffer("counter", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, value: Float[Tensor, "channels"]) -> None:
        """Takes in the next value."""
        self.counter += 1
        self.hidden.mul_(self.decay).add_(value, alpha=1 - self.decay)
        self.average.copy_(self.hidden / (1 - self.decay**self.counter))


class BatchNorm(nn.Module):
    """Normalises each channel over batch and space, and keeps the statistics for evaluation as Haiku does.

    DEVIATION from `torch.nn.BatchNorm2d`: the running variance is the biased one, and the averages are zero-debiased.
    DEVIATION from Haiku: an untrained average variance is 1, not 0, so that a new model can be evaluated; the first
    training step replaces it either way. Not synchronised between processes. Source: `haiku.BatchNorm`.

    Args:
        num_channels: channels of the images.
        decay: of the running averages.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, *, decay: float = 0.9, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.mean = ZeroDebiasedAverage(num_channels, decay=decay, initial=0.0)
        self.variance = ZeroDebiasedAverage(num_channels, decay=decay, initial=1.0)

    def forward(self, images: Images) -> Images:
        """Normalises by the batch's statistics while training, by the running ones otherwise."""
        if not self.training:
            return F.batch_norm(
                images,
                self.mean.average,
                self.variance.average,
                self.weight,
                self.bias,
                training=False,
                eps=self.eps,
            )
        variance, mean = torch.var_mean(images.detach().float(), dim=(0, 2, 3), correction=0)
        self.mean.update(mean)
        self.variance.update(variance)
        return F.batch_norm(images, None, None, self.weight, self.bias, training=True, eps=self.eps)


class Conv2DDownsample(nn.Module):
    """Maps images to features at a quarter of the resolution per layer: convolution, batch norm, ReLU, max-pooling.

    Source: the reference's `Conv2DDownsample`.

    Args:
        in_channels: channels of the images.
        num_channels: channels of every layer.
        num_layers: each downsamples by 4 (sizes are rounded up); none returns the images.
        use_batchnorm: whether batch norm follows the convolutions.
    """

    def __init__(
        self, in_channels: int, num_channels: int = 64, *, num_layers: int = 1, use_batchnorm: bool = True
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(num_channels if layer else in_channels, num_channels, kernel_size=7, stride=2, bias=False)
            for layer in range(num_layers)
        )
        self.batch_norms = nn.ModuleList(
            BatchNorm(num_channels) if use_batchnorm else nn.Identity() for _ in range(num_layers)
        )
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            haiku_default_(convolution, fan_in=convolution.in_channels * 7 * 7)

    def forward(self, images: Images) -> OutImages:
        """Applies the layers."""
        x = images
        for convolution, batch_norm in zip(self.convolutions, self.batch_norms, strict=True):
            x = F.relu(batch_norm(convolution(pad_same(x, (7, 7), (2, 2)))))
            x = F.max_pool2d(pad_same(x, (3, 3), (2, 2), value=-math.inf), kernel_size=3, stride=2)
        return x


class Conv2DUpsample(nn.Module):
    """Maps features to images of 4 times the resolution by two transposed convolutions with a ReLU between.

    Source: the reference's `Conv2DUpsample`.

    Args:
        in_channels: channels of the features.
        out_channels: channels of the images.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(in_channels, 2 * out_channels, kernel_size=4, stride=2, padding=1),
                nn.ConvTranspose2d(2 * out_channels, out_channels, kernel_size=4, stride=2, padding=1),
            ]
        )
        _initialise_transposed(self.layers)

    def forward(self, features: Images) -> OutImages:
        """Applies the layers."""
        return self.layers[1](F.relu(self.layers[0](features)))


class Conv3DUpsample(nn.Module):
    """Maps video features to videos of higher resolution by transposed convolutions that double time and space.

    An axis that needs fewer doublings than the other is left as it is in the remaining layers. Channels halve from
    layer to layer. Source: the reference's `Conv3DUpsample`.

    Args:
        in_channels: channels of the features.
        out_channels: channels of the videos.
        num_time_upsamples: doublings of the time axis.
        num_space_upsamples: doublings of height and width.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_time_upsamples: int = 2,
        num_space_upsamples: int = 4,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        num_layers = max(num_time_upsamples, num_space_upsamples)
        for layer in range(num_layers):
            channels = out_channels * 2 ** (num_layers - 1 - layer)
            time, space = (2 if layer < n else 1 for n in (num_time_upsamples, num_space_upsamples))
            self.layers.append(
                nn.ConvTranspose3d(in_channels, channels, kernel_size=4, stride=(time, space, space), padding=1)
            )
            in_channels = channels
        _initialise_transposed(self.layers)

    def forward(self, features: Videos) -> OutVideos:
        """Applies the layers."""
        x = features.transpose(1, 2)  # [B, C, T, H, W], as convolutions take it
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ConvTranspose3d)
            sizes = [size * stride for size, stride in zip(x.shape[2:], layer.stride, strict=True)]
            # SAME padding of an axis of stride 1 is uneven, (1, 2): one row too many is left at the end.
            x = layer(x)[..., : sizes[0], : sizes[1], : sizes[2]]
            if i < len(self.layers) - 1:
                x = F.relu(x)
        return x.transpose(1, 2)


def _initialise_transposed(layers: nn.ModuleList) -> None:
    for layer in layers:
        assert isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
        haiku_default_(layer, fan_in=layer.in_channels * math.prod(layer.kernel_size))
