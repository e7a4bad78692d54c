"""Files from outside, read within limits: only regular files, only plain values."""
