"""The output layer of most face networks: the whole last map, not its mean, becomes the embedding."""

from typing import Literal

from torch import Tensor, nn

from facelab.errors import in_range, one_of

LastNorm = Literal["affine", "bias", "plain"]
LAST_NORMS = ("affine", "bias", "plain")
FACEXZOO_OUTPUT = {"0": "norm", "3": "fc", "4": "last_norm"}  # FaceX-Zoo's names of the layers of OutputLayer
FACEXZOO_LINEAR_OUTPUT = {"1": "fc", "2": "last_norm"}  # and of LinearOutput


class OutputLayer(nn.Module):
    """BatchNorm - dropout - flatten - linear - BatchNorm, (B, C, H, W) -> (B, D).

    Args:
        channels: C of the last map.
        map_size: (H, W) of the last map.
        feat_dim: D, length of the embedding.
        drop_rate: Probability of dropping, from 0 up to but not including 1.
        drop_channels: Drop whole channels (MagFace) instead of single elements.
        last_norm: What the last BatchNorm learns: ``affine`` scale and bias (FaceX-Zoo, MagFace), ``bias`` with the
            scale fixed at 1 (InsightFace), ``plain`` nothing (AdaFace).
        eps: Added to the variance in both norms.
        momentum: Share of the new batch in the running statistics of both norms.

    Raises:
        ConfigError: If an option is out of range.
    """

    def __init__(
        self,
        channels: int,
        map_size: tuple[int, int],
        feat_dim: int,
        *,
        drop_rate: float = 0.0,
        drop_channels: bool = False,
        last_norm: LastNorm = "affine",
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        in_range("backbone drop_rate", drop_rate, 0.0, 1.0, high_open=True)
        one_of("backbone last_norm", last_norm, LAST_NORMS)
        height, width = map_size
        self.norm = nn.BatchNorm2d(channels, eps, momentum)
        self.dropout = nn.Dropout2d(drop_rate) if drop_channels else nn.Dropout(drop_rate)
        self.fc = nn.Linear(channels * height * width, feat_dim)
        self.last_norm = nn.BatchNorm1d(feat_dim, eps, momentum, affine=last_norm != "plain")
        if last_norm == "bias":
            self.last_norm.weight.requires_grad_(False)

    def forward(self, last_map: Tensor) -> Tensor:
        """Embeddings (B, D) of the last map (B, C, H, W)."""
        embedding: Tensor = self.last_norm(self.fc(self.dropout(self.norm(last_map)).flatten(1)))
        return embedding


class LinearOutput(nn.Module):
    """Flatten - dropout - linear without bias - BatchNorm, (B, C, H, W) -> (B, D).

    Args:
        channels: C of the last map.
        map_size: (H, W) of the last map.
        feat_dim: D, length of the embedding.
        drop_rate: Probability of dropping an element, from 0 up to but not including 1.

    Raises:
        ConfigError: If the drop rate is out of range.
    """

    def __init__(self, channels: int, map_size: tuple[int, int], feat_dim: int, *, drop_rate: float = 0.0) -> None:
        super().__init__()
        in_range("backbone drop_rate", drop_rate, 0.0, 1.0, high_open=True)
        height, width = map_size
        self.dropout = nn.Dropout(drop_rate)
        # The norm would take a bias out again.
        self.fc = nn.Linear(channels * height * width, feat_dim, bias=False)
        self.last_norm = nn.BatchNorm1d(feat_dim)

    def forward(self, last_map: Tensor) -> Tensor:
        """Embeddings (B, D) of the last map (B, C, H, W)."""
        embedding: Tensor = self.last_norm(self.fc(self.dropout(last_map.flatten(1))))
        return embedding
