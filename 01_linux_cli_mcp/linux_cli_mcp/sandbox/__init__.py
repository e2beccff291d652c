"""The sandbox of commands. `view` and `choice` run in the spoke; the rest is standard library only and runs
in a small process of its own per command, so that nothing is forked from a process with threads.
"""
