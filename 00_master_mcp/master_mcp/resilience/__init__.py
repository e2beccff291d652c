"""What keeps one failing spoke from costing the others anything."""
