# check: all that CI checks; test: the suite; explore: property tests with many more examples; bench: what needs no GPU;
# requirements, docs: write what is generated from the lock and from the code.
# demo: runs every request of examples/ offline and writes output/demo/index.html.
# fuzz: random requests and damaged files; soak: a long run of mixed jobs; chaos: a platform that fails at random.
.PHONY: check test explore fuzz soak chaos bench demo requirements docs

check:
	uv lock --check
	cd client && uv lock --check
	uv run ruff check .
	uv run ruff format --check .
	uv run mypy
	uv run pytest
	cd client && uv run mypy && uv run pytest

test:
	uv run pytest
	cd client && uv run pytest

explore:
	uv run pytest --hypothesis-profile=explore

fuzz:
	uv run python -m testing.fuzz

soak:
	uv run python -m testing.soak

chaos:
	uv run python -m testing.chaos

bench:
	uv run python -m benchmarks.overhead

demo:
	uv run python -m demo.page

requirements:
	{ echo "# pip install --no-deps -r requirements.txt" && uv export --quiet --locked --no-dev --no-emit-project --no-header; } > requirements.txt

docs:
	uv run python -m tools.docs
	uv run python -m tools.openapi
