"""Renders pictures of any size within a fixed memory budget: coordinates, memory plan, renderer, files."""
