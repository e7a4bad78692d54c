"""A trained model as its user sees it: images to embeddings, with their quality."""
