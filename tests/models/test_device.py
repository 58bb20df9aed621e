"""What the machine says about its devices."""

from __future__ import annotations

from pathlib import Path

from models.device import cpu_multiplies_bfloat16


def test_the_flags_of_a_cpu_tell_whether_it_multiplies_bfloat16(tmp_path: Path) -> None:
    for name, text, answer in (
        ("new", "processor: 0\nflags\t\t: fpu avx512f avx512_bf16 avx_vnni\n", True),
        ("amx", "flags : amx_tile amx_bf16\n", True),
        ("old", "flags : fpu avx2 avx512f\n", False),
        ("other", "Features : fp asimd\n", False),
    ):
        (tmp_path / name).write_text(text)
        assert cpu_multiplies_bfloat16(tmp_path / name) is answer
    assert cpu_multiplies_bfloat16(tmp_path / "absent") is False
