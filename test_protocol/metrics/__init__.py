"""Numbers from scores; pure NumPy."""
