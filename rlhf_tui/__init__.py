"""Teach a language model your taste, in your terminal, on the one GPU you own."""

__version__ = "0.1.0"
