"""Files of weights: checkpoints, model folders, published files."""
