"""The inverted bottleneck of EfficientNet and TF-NAS: expand, filter, gate, project."""

from torch import Tensor, nn

from facelab.backbone.layers.conv_norm import EPS, MOMENTUM, Activation, ConvNorm, SqueezeExcite
from facelab.backbone.layers.transformer import DropPath


class InvertedBottleneck(nn.Module):
    """Expand by 1x1 - filter - [squeeze] - project linearly; plus the input if the shape stays.

    Args:
        inputs: Channels of the input.
        inner: Channels of the filtered map; if they equal ``inputs``, there is no expansion.
        outputs: Channels of the output.
        kernel: Side of the filters.
        stride: 1 or 2.
        squeeze: Channels of the gate's inner layer; 0 for no gate.
        act: Activation of expansion, filters and gate.
        crop: Rows and columns by which the padding before the map is smaller than half the kernel; 1 is how
            TensorFlow pads an even map at stride 2.
        drop_path: Stochastic depth of the branch.
        eps: Added to the variance of the norms.
        momentum: Share of the new batch in the running statistics of the norms.
    """

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        kernel: int,
        stride: int,
        *,
        squeeze: int,
        act: Activation,
        crop: int = 0,
        drop_path: float = 0.0,
        eps: float = EPS,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__()
        self.halves = stride > 1
        self.residual = stride == 1 and inputs == outputs
        self.expand = ConvNorm(inputs, inner, act=act, eps=eps, momentum=momentum) if inner != inputs else nn.Identity()
        half = kernel // 2
        # At stride 2 TensorFlow pads an even map by one more behind it than before it, PyTorch alike on both sides.
        self.pad = nn.ZeroPad2d((half - crop, half, half - crop, half)) if crop else nn.Identity()
        self.depthwise = ConvNorm(
            inner,
            inner,
            kernel,
            stride=stride,
            groups=inner,
            act=act,
            padding=0 if crop else half,
            eps=eps,
            momentum=momentum,
        )
        self.squeeze = SqueezeExcite(inner, squeeze, act=act) if squeeze else nn.Identity()
        self.project = ConvNorm(inner, outputs, eps=eps, momentum=momentum)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride); an odd size rounds up, with ``crop`` down."""
        branch: Tensor = self.project(self.squeeze(self.depthwise(self.pad(self.expand(x)))))
        return x + self.drop_path(branch) if self.residual else branch
