"""Photo to faces: where they are, how sure that is, and their five landmarks."""
