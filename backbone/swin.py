"""Swin transformers: attention in windows that shift, with PETALface's three-stage face network as one setting."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.backbone.layers.recompute import recomputed
from facelab.backbone.layers.transformer import (
    INITIAL_DEVIATION,
    Attention,
    DropPath,
    FeedForward,
    Patches,
    initialise_transformer,
    rising_rates,
)
from facelab.citation import Citation
from facelab.errors import ConfigError, in_range, one_of
from facelab.inputs import InputSpec

Size = tuple[int, int]
SwinOutput = Literal["norm_linear", "linear"]
NEVER = -100.0  # added to the logit of a token that must not be seen


class WindowAttention(Attention):
    """Attention among the tokens of a window, with a learned bias for each relative position (Liu et al., Eq. 4).

    Args:
        dim: Width of a token.
        heads: Number of heads.
        window: Tokens of a window in (height, width).
        qkv_bias: Whether queries, keys and values have a bias.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: Size, qkv_bias: bool) -> None:
        super().__init__(dim, heads, qkv_bias)
        height, width = window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * height - 1) * (2 * width - 1), heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=INITIAL_DEVIATION)
        self.register_buffer("relative_position_index", relative_positions(window), persistent=False)

    def position_bias(self) -> Tensor:
        """Bias of each pair of tokens, (1, heads, N, N)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1).unsqueeze(0)


def relative_positions(window: Size) -> Tensor:
    """Number of the relative position of each pair of tokens in a window, int64, (N, N)."""
    height, width = window
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack((rows.flatten(), columns.flatten()))
    apart = place[:, :, None] - place[:, None, :]
    # Both differences, counted from 0, as the two digits of one number.
    return (apart[0] + height - 1) * (2 * width - 1) + apart[1] + width - 1


class SwinBlock(nn.Module):
    """Attention in windows, shifted in every second block, then a feed-forward network; each added to its input.

    Args:
        dim: Width of a token.
        heads: Number of heads.
        grid: Tokens of the image in (height, width); it is padded where windows do not fit.
        window: Side of a window in tokens; a smaller grid is one window.
        shifted: Whether windows are shifted by half their side.
        shift_mask: Whether tokens that the shift brought together from opposite borders ignore each other.
        mlp_ratio: Hidden width of the feed-forward network, in units of ``dim``.
        qkv_bias: Whether queries, keys and values have a bias.
        drop_path: Stochastic depth.
    """

    shift_bias: Tensor | None

    def __init__(
        self,
        dim: int,
        heads: int,
        grid: Size,
        window: int,
        *,
        shifted: bool,
        shift_mask: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.window: Size = (min(window, grid[0]), min(window, grid[1]))
        self.padding: Size = (-grid[0] % self.window[0], -grid[1] % self.window[1])
        # A window that covers the grid has no neighbour to shift to.
        self.shift: Size = tuple(
            side // 2 if shifted and side < length else 0 for side, length in zip(self.window, grid, strict=True)
        )  # type: ignore[assignment]
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, self.window, qkv_bias)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio, "gelu")
        bias = self._shift_bias() if shift_mask and any(self.shift) else None
        self.register_buffer("shift_bias", bias, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H W, dim) -> (B, H W, dim)."""
        tokens = tokens + self.drop_path(self._attend(self.norm1(tokens)))
        result: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return result

    def _attend(self, tokens: Tensor) -> Tensor:
        plane = torch.unflatten(tokens, 1, self.grid)
        plane = F.pad(plane, (0, 0, 0, self.padding[1], 0, self.padding[0]))
        if any(self.shift):
            plane = plane.roll((-self.shift[0], -self.shift[1]), (1, 2))
        bias = self.attn.position_bias()
        if self.shift_bias is not None:
            bias = (bias + self.shift_bias).repeat(tokens.shape[0], 1, 1, 1)  # len() is a constant in ONNX
        size = (plane.shape[1], plane.shape[2])
        plane = from_windows(self.attn(to_windows(plane, self.window), bias), self.window, size)
        if any(self.shift):
            plane = plane.roll(self.shift, (1, 2))
        return plane[:, : self.grid[0], : self.grid[1]].flatten(1, 2)

    def _shift_bias(self) -> Tensor:
        """What hides tokens of other regions after the shift, (windows, 1, N, N)."""
        # The shift brings the beginning of an axis behind its end, into the same last window. Both get numbers of their
        # own, and tokens see each other where the numbers of both axes agree.
        regions = [
            torch.bucketize(torch.arange(length), torch.tensor([length - side, length - shift]), right=True)
            if shift
            else torch.zeros(length, dtype=torch.int64)
            for length, side, shift in zip(
                (self.grid[0] + self.padding[0], self.grid[1] + self.padding[1]), self.window, self.shift, strict=True
            )
        ]
        region = (3 * regions[0][:, None] + regions[1][None, :]).float()
        parts = to_windows(region[None, :, :, None], self.window).squeeze(2)
        return (parts[:, :, None] != parts[:, None, :]).float().mul(NEVER).unsqueeze(1)


def to_windows(plane: Tensor, window: Size) -> Tensor:
    """(B, H, W, dim) -> (B windows, N, dim): the windows of an image in a row, those of the next one behind."""
    batch, height, width, dim = plane.shape
    cut = plane.view(batch, height // window[0], window[0], width // window[1], window[1], dim)
    return cut.transpose(2, 3).reshape(-1, window[0] * window[1], dim)


def from_windows(windows: Tensor, window: Size, size: Size) -> Tensor:
    """(B windows, N, dim) -> (B, H, W, dim)."""
    rows, columns = size[0] // window[0], size[1] // window[1]
    cut = windows.view(-1, rows, columns, window[0], window[1], windows.shape[2])
    return cut.transpose(2, 3).reshape(-1, *size, windows.shape[2])


class PatchMerging(nn.Module):
    """Four neighbouring tokens become one of twice the width; an odd row or column is padded with zeros."""

    def __init__(self, grid: Size, dim: int) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H W, dim) -> (B, ceil(H / 2) ceil(W / 2), 2 dim)."""
        plane = torch.unflatten(tokens, 1, self.grid)
        plane = F.pad(plane, (0, 0, 0, self.grid[1] % 2, 0, self.grid[0] % 2))
        # Column by column: published weights expect the four tokens in this order.
        corners = [plane[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1).flatten(1, 2)))
        return merged


class Stage(nn.Module):
    """Blocks on one grid, and the merging that leads to the next one."""

    def __init__(self, blocks: list[SwinBlock], merging: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = merging


@BACKBONES.register("Swin")
class Swin(Backbone):
    """Swin transformer (Liu et al., ICCV 2021, arXiv:2103.14030) whose last tokens all make the embedding.

    The output is LayerNorm - flatten, then BatchNorm - dropout - linear - BatchNorm (``norm_linear``, PETALface) or
    linear - BatchNorm (``linear``, FaceX-Zoo).

    PETALface's program computes the mask of shifted windows and never uses it, so tokens see each other across
    opposite borders of the image; its released weights need ``shift_mask: false``.

    Args:
        input_spec: Size, colour order and value range of the input.
        feat_dim: D, length of an embedding.
        patch: Side of a patch, in pixels.
        dim: Width of a token in the first stage; it doubles with each stage.
        depths: Blocks of each stage.
        heads: Heads of each stage.
        window: Side of a window, in tokens; a smaller grid is one window.
        mlp_ratio: Hidden width of the feed-forward networks, in units of the token's width; above 0, at most 64.
        qkv_bias: Whether queries, keys and values have a bias.
        absolute_positions: Whether each patch has a learned position beside the relative ones.
        shift_mask: Whether shifted windows hide tokens of the opposite border.
        output: ``norm_linear`` or ``linear``.
        drop_rate: Dropout before the last linear layer.
        drop_path_rate: Stochastic depth of the last block; it rises from 0.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If sizes do not fit or a rate is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="liu2021swin",
        title="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        authors="Liu, Ze and Lin, Yutong and Cao, Yue and Hu, Han and Wei, Yixuan and Zhang, Zheng and Lin, Stephen "
        "and Guo, Baining",
        venue="ICCV",
        year=2021,
        arxiv="2103.14030",
    )

    def __init__(
        self,
        input_spec: InputSpec = InputSpec(),  # noqa: B008  (frozen)
        feat_dim: int = 512,
        patch: int = 4,
        dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (3, 6, 12, 24),
        window: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        absolute_positions: bool = False,
        shift_mask: bool = True,
        output: SwinOutput = "norm_linear",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.05,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        if not depths or len(depths) != len(heads):
            raise ConfigError(f"Swin needs heads for each stage: depths {list(depths)}, heads {list(heads)}.")
        for depth in depths:
            in_range("Swin depths", depth, 1, 1000)
        in_range("Swin window", window, 1, 1000)
        in_range("Swin drop_rate", drop_rate, 0.0, 1.0, high_open=True)
        in_range("Swin drop_path_rate", drop_path_rate, 0.0, 1.0, high_open=True)
        one_of("Swin output", output, get_args(SwinOutput))
        self.checkpointing = checkpointing
        self.patch_embed = Patches(input_spec, patch, dim, norm=True)
        grid = self.patch_embed.grid
        self.absolute_pos_embed = nn.Parameter(torch.empty(1, grid[0] * grid[1], dim)) if absolute_positions else None
        rates = iter(rising_rates(drop_path_rate, sum(depths)))
        self.stages = nn.ModuleList()
        for number, (depth, stage_heads) in enumerate(zip(depths, heads, strict=True)):
            blocks = [
                SwinBlock(
                    dim,
                    stage_heads,
                    grid,
                    window,
                    shifted=bool(place % 2),
                    shift_mask=shift_mask,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    drop_path=next(rates),
                )
                for place in range(depth)
            ]
            last = number == len(depths) - 1
            self.stages.append(Stage(blocks, None if last else PatchMerging(grid, dim)))
            if not last:
                grid, dim = ((grid[0] + 1) // 2, (grid[1] + 1) // 2), 2 * dim
        self.norm = nn.LayerNorm(dim)
        flat = grid[0] * grid[1] * dim
        before = [nn.BatchNorm1d(flat), nn.Dropout(drop_rate)] if output == "norm_linear" else []
        self.feature = nn.Sequential(*before, nn.Linear(flat, feat_dim), nn.BatchNorm1d(feat_dim))
        initialise_transformer(self)
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=INITIAL_DEVIATION)

    @property
    def fsdp_units(self) -> tuple[nn.Module, ...]:
        """The blocks of all stages, and the output, which sees all tokens at once."""
        return (*(block for stage in self.stages for block in stage.blocks), self.feature)  # type: ignore[union-attr]

    def features(self, image: Tensor) -> Features:
        """Embedding, the map (B, C, H, W) after each stage, and the last tokens (B, N, C)."""
        tokens: Tensor = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            tokens = tokens + self.absolute_pos_embed
        maps = []
        for stage in self.stages:
            for block in stage.blocks:  # type: ignore[union-attr]
                tokens = recomputed(block, tokens) if self.checkpointing and self.training else block(tokens)
            grid = stage.blocks[-1].grid  # type: ignore[index, union-attr]
            maps.append(torch.unflatten(tokens.transpose(1, 2), 2, grid))
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)  # type: ignore[operator]
        tokens = self.norm(tokens)
        return Features(self.feature(tokens.flatten(1)), maps=tuple(maps), tokens=tokens)
