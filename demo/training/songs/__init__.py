"""Trains `demo-acestep`, a tiny ACE-Step checkpoint in the published layout: `python -m demo.training.songs all`."""
