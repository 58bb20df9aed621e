"""python -m demo.page: runs every request in examples/ offline and writes output/demo/index.html."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from demo.page.run import INLINE_BUDGET_BYTES, ROOT, Result, list_examples, run_example

OUTPUT = ROOT / "output" / "demo" / "index.html"


def main(arguments: list[str] | None = None) -> int:
    """Runs the examples, writes the page and prints one line for each; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.page", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the page (default: output/demo/index.html)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of examples (default: all)")
    options = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub client is imported
    page, results = make_page([path for path in list_examples() if not options.only or path.stem in options.only])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page, encoding="utf-8")
    print(f"Wrote {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)")
    return 0 if any(not result.error for result in results) else 1


def make_page(examples: list[Path]) -> tuple[str, list[Result]]:
    """The page, and the results that it shows. Voices that an example adds are gone afterwards."""
    import handler
    from demo.page.html import write_page
    from operations.operation import list_schemas
    from operations.version import read_version
    from worker.settings import Settings

    with tempfile.TemporaryDirectory() as voices:
        settings = replace(
            Settings.from_env(),
            rvc_models_dir=Path(voices),
            allow_voice_upload=True,
            inline_budget_bytes=INLINE_BUDGET_BYTES,
        )
        results = []
        for path in examples:
            result = run_example(path, settings)
            print(f"{result.name:24} {result.seconds:6.1f} s  {result.error or 'ok'}", flush=True)
            results.append(result)
        device = handler.get_models(settings).device.partition(":")[0]
    summaries = {name: str(schema["summary"]) for name, schema in list_schemas().items()}
    return write_page(results, summaries, version=read_version(), device=device), results


if __name__ == "__main__":
    sys.exit(main())
