"""Weights that other programs wrote: torch files, pickles and plain safetensors, read without running what they carry.

A process of its own reads the file, within bounds of memory and time, and hands over tensors and plain values.
"""
