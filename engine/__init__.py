"""The engine, from a checkpoint to pixels: networks, runtimes, panoramas."""
