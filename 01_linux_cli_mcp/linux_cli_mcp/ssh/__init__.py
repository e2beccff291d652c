"""Other machines over SSH. The modules below load asyncssh: import them on first use, in a thread."""
