"""Speed, memory and parity beside the reference libraries, measured in the same run.

Each benchmark prints a table and ends with one JSON object: `name`, `device`, `ours` and `reference` (seconds for the
same work, lower is better), `ratio` = reference / ours, and further figures.
"""
