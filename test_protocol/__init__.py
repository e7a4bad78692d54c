"""Test protocols: the one extractor, metrics, reports."""

if __name__ != "facelab.test_protocol":
    raise ImportError(f"this package is 'facelab.test_protocol'; import it by that name, not as '{__name__}'")
