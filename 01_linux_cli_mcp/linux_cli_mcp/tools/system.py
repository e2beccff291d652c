"""The machine itself: system facts, services and the journal."""
