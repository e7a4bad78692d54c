"""Backbones: image (B, 3, H, W) -> embedding (B, D)."""

if __name__ != "facelab.backbone":
    raise ImportError(f"this package is 'facelab.backbone'; import it by that name, not as '{__name__}'")
