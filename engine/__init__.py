"""From a checkpoint to pixels: networks, runtimes, panoramas."""
