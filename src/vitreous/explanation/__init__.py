"""Where in a picture an answer comes from, and whether the drawing of it can be believed."""
