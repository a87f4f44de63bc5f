"""The code that the pages quote, and the machinery that runs the pages."""
