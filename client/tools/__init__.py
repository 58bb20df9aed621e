"""What is run while the package is made; not part of it."""
