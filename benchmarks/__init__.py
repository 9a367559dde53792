"""Measurements. Every figure is taken in one run with the figures it is compared to, and names its conditions."""
