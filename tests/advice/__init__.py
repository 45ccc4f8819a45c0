"""Every message that gives advice: where they are, and what follows each; see `test_advice.py`."""
