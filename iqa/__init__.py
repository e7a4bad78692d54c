"""Image quality: image -> score with a declared range and direction."""

if __name__ != "facelab.iqa":
    raise ImportError(f"this package is 'facelab.iqa'; import it by that name, not as '{__name__}'")
