"""What changes images on the device."""
