"""Parts that transformers share: attention, feed-forward network, stochastic depth, patches, and the flat output."""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from facelab.errors import ConfigError, in_range
from facelab.inputs import InputSpec

Activation = Literal["gelu", "relu6"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "relu6": nn.ReLU6}
INITIAL_DEVIATION = 0.02
MAX_RATIO = 64.0


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): drops a residual branch of whole images during training.

    Args:
        rate: Probability of dropping; what remains is scaled so that the mean stays.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """The branch (B, …), zero for some images."""
        if not self.training or not self.rate:
            return branch
        kept = branch.new_empty(len(branch), *[1] * (branch.ndim - 1)).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate:.3g}"


class FeedForward(nn.Module):
    """Linear - activation - linear on each token.

    Args:
        dim: Width of a token.
        ratio: Width between the two layers, in units of ``dim``; rounded, and at least 1.
        activation: ``gelu`` or ``relu6``.

    Raises:
        ConfigError: If the ratio is not in (0, 64].
    """

    def __init__(self, dim: int, ratio: float, activation: Activation) -> None:
        super().__init__()
        in_range("mlp_ratio", ratio, 0.0, MAX_RATIO, low_open=True)
        hidden = max(1, round(dim * ratio))
        self.fc1 = nn.Linear(dim, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, dim) -> (…, dim)."""
        result: Tensor = self.fc2(self.act(self.fc1(tokens)))
        return result


class Attention(nn.Module):
    """Multi-head self-attention with one projection to queries, keys and values (Vaswani et al., NeurIPS 2017, Eq. 1).

    Args:
        dim: Width of a token; a multiple of ``heads``.
        heads: Number of heads.
        qkv_bias: Whether that projection has a bias.

    Raises:
        ConfigError: If the width is not a multiple of the heads.
    """

    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f"attention of width {dim} cannot be cut into {heads} heads; choose a divisor of {dim}.")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens (B, N, dim) that have seen each other; ``bias`` is added to the logits, broadcast to (B, h, N, N)."""
        # In the order of published weights: all of the queries, head by head, then the keys and the values.
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, None if bias is None else bias.to(query.dtype))
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result


class Patches(nn.Module):
    """Cuts an image into square patches and projects each to a token.

    Rows and columns that do not fill a patch are never seen; ViTs of 9-pixel patches leave 4 of 112 pixels.

    Args:
        spec: Size of the image.
        patch: Side of a patch, in pixels.
        dim: Width of a token.
        norm: Whether a LayerNorm follows.

    Attributes:
        grid: Patches in (height, width).
        side: Of a patch, in pixels.

    Raises:
        ConfigError: If not a single patch fits, or a token has no width.
    """

    def __init__(self, spec: InputSpec, patch: int, dim: int, norm: bool) -> None:
        super().__init__()
        if not 1 <= patch <= min(spec.size):
            raise ConfigError(f"patches of {patch} pixels do not fit into images of {spec.height}x{spec.width}.")
        in_range("width of a token, dim,", dim, 1, math.inf)
        self.grid = (spec.height // patch, spec.width // patch)
        self.side = patch
        self.proj = nn.Conv2d(3, dim, patch, patch)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, dim), row by row."""
        tokens: Tensor = self.norm(self.proj(image).flatten(2).transpose(1, 2))
        return tokens


def initialise_transformer(network: nn.Module) -> None:
    """Truncated normal weights of deviation 0.02 and zero biases in every linear layer."""
    # Constructors call this, before there are adapters; PETALface's program redraws the zeros of its adapters with it.
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=INITIAL_DEVIATION)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def rising_rates(rate: float, depth: int) -> list[float]:
    """Stochastic depth of each block: from 0 at the first to ``rate`` at the last."""
    return [rate * place / max(depth - 1, 1) for place in range(depth)]
