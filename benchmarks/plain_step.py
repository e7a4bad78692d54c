"""A training step as InsightFace's program makes it, on images that lie on the device: the other side of `gpu.py`.

What its network, its class rows and its loop do (arcface_torch, ``train_v2.py``), written plainly:

- the network is ours, with the same weights, made of stock modules alone, contiguous, in fp16 by ``torch.autocast``;
  attention is written out as two products and a softmax;
- class rows are a dense parameter: cosines of a batch with all of them in fp16, then fp32, clamped, through arc cosine
  and cosine without gradient for the margin, then a softmax;
- ``GradScaler``, ``clip_grad_norm_`` of the network's gradients at 5, ``torch.optim.SGD`` as it comes; the loss is read
  with ``.item()`` at every step.

It spares itself what that program also does: DistributedDataParallel around one process, attention in fp32, and the
last layer of an iResNet in fp32.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from facelab.backbone.base import Backbone
from facelab.backbone.layers.activation import PReLU
from facelab.backbone.mobilefacenet import ConvUnit
from facelab.inputs import normalise

MARGIN, SCALE, CLIP = 0.5, 64.0, 5.0


def stock_network(backbone: Backbone) -> Backbone:
    """The network of a catalogue entry with stock modules only, changed in place; same parameters, same output."""
    for module in list(backbone.modules()):
        if isinstance(module, ConvUnit):
            module.reduces_channelwise = False
        for name, child in module.named_children():
            if isinstance(child, PReLU):
                setattr(module, name, _stock_prelu(child))
    return backbone


def _stock_prelu(ours: PReLU) -> nn.PReLU:
    stock = nn.PReLU(ours.num_parameters).to(ours.weight.device)
    stock.load_state_dict(ours.state_dict())
    return stock


class PlainStep:
    """One update after another by the same batch.

    Args:
        network: On its device; made of stock modules and contiguous here.
        pixels: Stored images, uint8, (B, 3, H, W). Normalised once: there the loader's workers do that.
        labels: Their classes, int64, (B,).
        classes: How many there are.
    """

    def __init__(self, network: Backbone, pixels: Tensor, labels: Tensor, classes: int) -> None:
        self.network = stock_network(network).to(memory_format=torch.contiguous_format).train()  # type: ignore[call-overload]
        self.image = normalise(pixels, network.input_spec).contiguous()
        self.labels = labels
        self.rows = nn.Parameter(torch.randn(classes, network.feat_dim, device=pixels.device) * 0.01)
        parameters = [*self.network.parameters(), self.rows]
        self.optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)
        self.scaler = torch.amp.GradScaler(pixels.device.type, growth_interval=100)

    def __call__(self) -> float:
        """The loss, from the device."""
        with torch.autocast(self.image.device.type, torch.float16), sdpa_kernel(SDPBackend.MATH):
            cosine = F.linear(F.normalize(self.network(self.image)), F.normalize(self.rows))
        loss = F.cross_entropy(self._with_margin(cosine.float().clamp(-1, 1)), self.labels)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return float(loss.item())

    def _with_margin(self, cosine: Tensor) -> Tensor:
        """Logits, (B, C) as the cosines, which are written over."""
        with torch.no_grad():  # so that the gradient is that of a plain softmax at these values, as published
            angle = cosine.arccos_()
            angle[torch.arange(len(cosine), device=cosine.device), self.labels] += MARGIN
            angle.cos_()
        return SCALE * cosine
