# check: everything that .ci/run checks; test: the suite; bench: the benchmarks that need no GPU.
.PHONY: check test bench requirements

check:
	uv lock --check
	uv run ruff check .
	uv run ruff format --check .
	uv run mypy
	uv run pytest

test:
	uv run pytest

bench:
	uv run python -m benchmarks.overhead

requirements:
	uv export --locked --no-dev --no-hashes --no-emit-project --no-header --output-file requirements.txt
