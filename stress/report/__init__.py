"""What a run leaves to look at: figures as plain data, a line while it runs, a summary, a page."""
