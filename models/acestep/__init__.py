"""ACE-Step 1.5: songs with lyrics and edits of songs, by a diffusion transformer over the latents of an audio VAE."""
