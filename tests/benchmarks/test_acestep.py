"""The benchmarks of ACE-Step with tiny networks: both implementations run and make the same music."""

from __future__ import annotations

import json

import pytest

from benchmarks import acestep


def test_ours_and_the_pipeline_make_the_same_music_in_the_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    acestep.main(["--tiny", "--device", "cpu", "--dtype", "float32", "--planner"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["snr_db"] > 100
    assert result["ratio"] == pytest.approx(result["reference"] / result["ours"], abs=0.01)
    for name, total in (("stages_s", result["ours"]), ("reference_stages_s", result["reference"])):
        stages = result[name]
        assert set(stages) == {"text", "conditions", "steps", "vae"}
        assert 0 < sum(stages.values()) <= total + 0.01
    assert result["load_s"] > 0 and result["peak_gb"] > 0
    assert all(seconds > 0 for seconds in result["planner"].values())
