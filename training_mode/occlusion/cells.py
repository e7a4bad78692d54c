"""A number for each cell of a feature map: what a generator and a segmentation have in common."""

from torch import Tensor, nn

MOST_CHANNELS = 64


class CellNumbers(nn.Module):
    """Two convolutions that look at a cell and its neighbours.

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = min(channels, MOST_CHANNELS)
        # Normalised by the image, not by the batch: a process sees a part of that.
        self.norm = nn.GroupNorm(1, channels)
        self.first = nn.Conv2d(channels, hidden, 3, padding=1)
        self.activation = nn.PReLU(hidden)
        self.second = nn.Conv2d(hidden, 1, 1)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W)."""
        # Contiguous, because on the CPU torch 2.13 crashes in the backward pass of a GroupNorm whose input is
        # channels_last and needs no gradient.
        normal = self.norm(feature_map.contiguous())
        numbers: Tensor = self.second(self.activation(self.first(normal)))
        return numbers
