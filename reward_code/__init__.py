"""From an answer's text to numbers."""
