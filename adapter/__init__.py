"""Changes to a built backbone: low-rank adapters and fine-tuning by pattern."""

if __name__ != "facelab.adapter":
    raise ImportError(f"this package is 'facelab.adapter'; import it by that name, not as '{__name__}'")
