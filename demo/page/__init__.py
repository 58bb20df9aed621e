"""Runs every request in examples/ and writes a page with what went in and what came out."""
