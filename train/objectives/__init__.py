"""The training objectives: which views and labels each needs, and its loss."""
