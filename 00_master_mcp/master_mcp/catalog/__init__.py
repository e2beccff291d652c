"""What exists and is healthy."""
