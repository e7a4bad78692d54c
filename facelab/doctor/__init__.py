"""What is wrong with a set of faces: what its images, a scorer, landmarks and a model say, and what to leave out."""
