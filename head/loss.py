"""A head with its class rows as a loss of plain PyTorch: embeddings and labels in, one number out."""

import torch
from torch import Tensor, nn

from facelab.errors import DataError
from facelab.head.classifier import Classifier


class HeadLoss(nn.Module):
    """``loss = criterion(embeddings, labels)``, for training loops that are not ours.

    The rows of the classes, and whatever else the head learns, are parameters of this module: they belong into an
    optimiser and into checkpoints beside those of the network. With several processes it stays outside of
    DistributedDataParallel, as the classifier in it does. An owner of rows that change without a gradient wants
    ``criterion.classifier.after_update()`` after each step of the optimisers.

    Args:
        classifier: Owns the class rows and drives a head. Calling it instead gives the loss with its metrics.
        feat_dim: D, the length of an embedding.
    """

    def __init__(self, classifier: Classifier, feat_dim: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.feat_dim = feat_dim

    @property
    def num_classes(self) -> int:
        """C; labels are 0 to C - 1."""
        return self.classifier.num_classes

    def forward(self, embeddings: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean loss of a batch.

        Args:
            embeddings: As the network gives them, of any norm, (B, D) with B at least 1.
            labels: Number of each image's class, integers 0..C-1, (B,).
            weight: What the loss of each is multiplied by before the mean, (B,), or None for 1.

        Returns:
            The loss, ().

        Raises:
            DataError: If the shapes do not fit, labels are not integers, or those on the CPU lie outside of 0..C-1.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.feat_dim or not len(embeddings):
            raise DataError(f"embeddings must be (B, {self.feat_dim}), got {tuple(embeddings.shape)}.")
        if labels.shape != embeddings.shape[:1]:
            raise DataError(f"{len(embeddings)} embeddings need as many labels, got {tuple(labels.shape)}.")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise DataError(f"labels must be integers (int64), got {labels.dtype}.")
        if weight is not None and weight.shape != labels.shape:
            raise DataError(f"{len(embeddings)} embeddings need as many weights, got {tuple(weight.shape)}.")
        loss: Tensor = self.classifier(embeddings, labels.long(), weight).loss
        return loss
