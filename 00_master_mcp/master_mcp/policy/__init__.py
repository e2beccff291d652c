"""What a caller may do with a tool: allow, confirm, approve or deny."""
