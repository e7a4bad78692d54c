"""What a student may learn from a teacher: one file a loss."""
