"""What a run comes to: the result as a value, the verdict in the terminal, the page, and two runs side by side."""
