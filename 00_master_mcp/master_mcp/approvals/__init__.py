"""Calls that wait for a person: held, decided, run once."""
