"""Samples, sources, samplers, loading, alignment."""

if __name__ != "facelab.data":
    raise ImportError(f"this package is 'facelab.data'; import it by that name, not as '{__name__}'")
