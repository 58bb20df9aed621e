"""Trains the demo content encoder and the two demo voices on sung lines, and measures them."""
