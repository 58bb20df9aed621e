"""Model families: what can be loaded, and how each one is run."""
