"""Pictures of any size inside a fixed memory budget: coordinates, memory plan, schedule, files."""
