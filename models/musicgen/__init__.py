"""MusicGen and its relatives, through audiocraft."""
