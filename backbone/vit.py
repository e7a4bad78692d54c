"""Vision transformers for faces: InsightFace's and PETALface's ViT, and TransFace's with a gate for each patch."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, Backbone, Features, PatchGrid
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
from facelab.errors import ConfigError, in_range
from facelab.inputs import InputSpec

NORM_EPS = 2e-5  # of the output's BatchNorms


class Block(nn.Module):
    """LayerNorm - attention, LayerNorm - feed-forward, each added to its input."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio, "relu6")
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        result: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return result


class PatchGate(nn.Module):
    """Weight of each patch from all tokens, in (0, 1): TransFace's squeeze and excitation over patches."""

    def __init__(self, patches: int, dim: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(patches * dim, patches, bias=False)
        self.excite = nn.Linear(patches, patches, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N)."""
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(tokens.flatten(1)))))


@BACKBONES.register("ViT")
class ViT(Backbone):
    """Vision transformer on patches of the face, all of whose tokens make the embedding (no class token, no pooling).

    Pre-norm blocks with ReLU6, learned positions, and the output linear - BatchNorm - linear - BatchNorm of InsightFace
    (An et al., CVPR 2022, arcface_torch). PETALface uses the same network. With ``patch_gate`` it is TransFace's (Dan
    et al., ICCV 2023, arXiv:2308.10133, Sec. 3.3), whose gate stays active at inference.

    During training a share of the tokens is left out and replaced by one learned token after the last block. The
    published programs always leave out 0.1 of them, whatever ratio is set; here the ratio is obeyed. Attention runs in
    the precision of the surroundings, not in forced fp32.

    Args:
        input_spec: Size, colour order and value range of the input.
        feat_dim: D, length of an embedding.
        patch: Side of a patch, in pixels.
        dim: Width of a token.
        depth: Number of blocks.
        heads: Heads of each attention.
        mlp_ratio: Hidden width of the feed-forward networks, in units of ``dim``; above 0, at most 64.
        drop_path_rate: Stochastic depth of the last block; it rises from 0.
        mask_ratio: Share of tokens left out during training, from 0 up to but not including 1.
        patch_gate: Whether tokens are weighted by TransFace's gate before the output.
        checkpointing: Compute the blocks again in the backward pass instead of keeping their inner values.

    Raises:
        ConfigError: If sizes do not fit or a rate is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="dosovitskiy2021vit",
        title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        authors="Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and "
        "Zhai, Xiaohua and Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias and Heigold, Georg and "
        "Gelly, Sylvain and Uszkoreit, Jakob and Houlsby, Neil",
        venue="ICLR",
        year=2021,
        arxiv="2010.11929",
    )

    def __init__(
        self,
        input_spec: InputSpec = InputSpec(),  # noqa: B008  (frozen)
        feat_dim: int = 512,
        patch: int = 9,
        dim: int = 512,
        depth: int = 12,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        mask_ratio: float = 0.1,
        patch_gate: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        in_range("ViT drop_path_rate", drop_path_rate, 0.0, 1.0, high_open=True)
        self.mask_ratio = in_range("ViT mask_ratio", mask_ratio, 0.0, 1.0, high_open=True)
        in_range("ViT depth", depth, 1, 1000)
        self.checkpointing = checkpointing
        self.patch_embed = Patches(input_spec, patch, dim, norm=False)
        count = self.patch_embed.grid[0] * self.patch_embed.grid[1]
        if mask_ratio and self._kept(count) < 1:
            raise ConfigError(f"ViT mask_ratio {mask_ratio} leaves none of {count} patches.")
        self.pos_embed = nn.Parameter(torch.empty(1, count, dim))
        # Unused it is not trained: DistributedDataParallel takes a parameter without a gradient for an error.
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim), requires_grad=mask_ratio > 0)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, rate) for rate in rising_rates(drop_path_rate, depth))
        self.norm = nn.LayerNorm(dim)
        self.gate = PatchGate(count, dim) if patch_gate else None
        self.feature = nn.Sequential(
            nn.Linear(count * dim, dim, bias=False),
            nn.BatchNorm1d(dim, NORM_EPS),
            nn.Linear(dim, feat_dim, bias=False),
            nn.BatchNorm1d(feat_dim, NORM_EPS),
        )
        initialise_transformer(self)
        for table in (self.pos_embed, self.mask_token):
            nn.init.trunc_normal_(table, std=INITIAL_DEVIATION)

    @property
    def gated_patches(self) -> PatchGrid | None:
        """All patches, if there is a gate."""
        return None if self.gate is None else PatchGrid(*self.patch_embed.grid, self.patch_embed.side)

    @property
    def fsdp_units(self) -> tuple[nn.Module, ...]:
        """The blocks, the gate, and the output, whose first layer sees all tokens at once."""
        return (*self.blocks, *((self.gate,) if self.gate is not None else ()), self.feature)

    def features(self, image: Tensor) -> Features:
        """Embedding, tokens (B, N, dim) as they enter the output, and the gate (B, N) if there is one."""
        tokens = self.patch_embed(image) + self.pos_embed
        place = self._places(tokens) if self.training and self.mask_ratio else None
        if place is not None:
            tokens = _rows(tokens, place[:, : self._kept(tokens.shape[1])])
        for block in self.blocks:
            tokens = recomputed(block, tokens) if self.checkpointing and self.training else block(tokens)
        tokens = self.norm(tokens)
        # Behind the norm, as published, so the learned token enters the output as it is.
        if place is not None:
            tokens = self._refilled(tokens, place)
        gate = None if self.gate is None else self.gate(tokens)
        if gate is not None:
            # The weighted tokens are given to the outside too: it is of these that TransFace takes the deviation.
            tokens = gate.unsqueeze(2) * tokens
        return Features(self.feature(tokens.flatten(1)), tokens=tokens, patch_gate=gate)

    def _kept(self, count: int) -> int:
        # Rounded down, as published: 129 of 144.
        return int(count * (1 - self.mask_ratio))

    @staticmethod
    def _places(tokens: Tensor) -> Tensor:
        """A random order of the tokens of each image, (B, N); the first ones stay."""
        return torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1)

    def _refilled(self, kept: Tensor, place: Tensor) -> Tensor:
        """All tokens in their order, the learned one where a token was left out."""
        missing = place.shape[1] - kept.shape[1]
        filling = self.mask_token.to(kept.dtype).expand(len(kept), missing, -1)
        return _rows(torch.cat((kept, filling), dim=1), place.argsort(dim=1))


def _rows(tokens: Tensor, place: Tensor) -> Tensor:
    """Chosen tokens of each image, (B, K, dim)."""
    return tokens.gather(1, place.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
