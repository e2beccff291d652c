"""Where secrets are kept: one port, and a module for each kind of store."""
