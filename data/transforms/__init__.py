"""What changes images at random on the device: one transform a file."""
