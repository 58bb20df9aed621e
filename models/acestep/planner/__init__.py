"""The 5 Hz language model of ACE-Step 1.5: plans songs (caption, lyrics, metas) and their audio codes."""
