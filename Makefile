# check: all that CI checks; test: the suite; bench: what needs no GPU; requirements, readme: write what is made from code.
.PHONY: check test bench requirements readme

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

readme:
	uv run python -m tools.docs
