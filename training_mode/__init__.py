"""Training modes: one folder a mode."""

if __name__ != "facelab.training_mode":
    raise ImportError(f"this package is 'facelab.training_mode'; import it by that name, not as '{__name__}'")
