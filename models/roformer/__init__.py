"""Mel-Band RoFormer and BS RoFormer: separation networks, and the files that they are published in."""
