"""Products of families: groups of columns that are independent given the component."""
