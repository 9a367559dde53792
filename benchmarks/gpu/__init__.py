"""All that needs a GPU, in one command and a bounded time: tests, tuning, measurements, a panorama (`make gpu`)."""
