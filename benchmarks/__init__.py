"""Measurements: every figure in one run with what it is compared to, and with its conditions."""
