"""When something is due: timetables, the clockwork that keeps them, the section of the settings that says them."""
