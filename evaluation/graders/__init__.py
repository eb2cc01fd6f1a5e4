"""Graders: from a model's text to a verdict, by answer type."""
