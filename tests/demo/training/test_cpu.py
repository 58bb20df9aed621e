"""Training computes convolutions in bfloat16 rightly on every CPU."""

import os
import subprocess
import sys

from testing.repository import ROOT

SCRIPT = """
from demo.training.cpu import prepare_cpu
prepare_cpu(1)
import torch
from models.runtime.dtype import convolves_bfloat16
assert torch.get_num_threads() == 1
assert convolves_bfloat16(torch.device("cpu"))
"""


def test_convolutions_in_bfloat16_are_right_after_the_cpu_is_prepared() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
