"""Component distributions: one folder or file a family."""
