"""Margin heads and the classifiers that own the class rows."""

if __name__ != "facelab.head":
    raise ImportError(f"this package is 'facelab.head'; import it by that name, not as '{__name__}'")
