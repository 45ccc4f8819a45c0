"""Sections of a page about a model, each in a file of its own."""
