"""Where a fit starts, how it ascends, and which of several models wins."""
