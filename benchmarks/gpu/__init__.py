"""Everything that needs a GPU, in one command of bounded time: tests, tuning, measurements, a panorama (`make gpu`)."""
