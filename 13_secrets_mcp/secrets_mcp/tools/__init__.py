"""The tools, by what they do to a secret: look, change, lease."""
