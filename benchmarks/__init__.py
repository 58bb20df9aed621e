"""What the worker costs, beside a reference in the same run. Each prints a table and, last, one JSON object."""
