"""Everything that measures how long something takes."""
