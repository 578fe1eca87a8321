"""What a run leaves to look at: figures as plain data, text for a terminal, Markdown for our papers, a page."""
