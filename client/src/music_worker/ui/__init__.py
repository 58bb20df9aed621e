"""The page of `music-worker ui`: its files, its jobs and its HTTP server; `static/` is what the browser loads."""
