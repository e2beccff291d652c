"""Workflows: many calls as one durable run."""
