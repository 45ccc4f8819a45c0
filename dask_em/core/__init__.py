"""One pass over the data, and what the rooms above agree on."""
