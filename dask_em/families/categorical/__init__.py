"""Categorical components: independent answers to several questions, given the component."""
