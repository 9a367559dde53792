"""Exact rewrites."""
