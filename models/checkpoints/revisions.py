"""The commit of each repository on the Hugging Face hub that is downloaded. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

REVISIONS: Mapping[str, str] = MappingProxyType(
    {
        "facebook/musicgen-small": "4c8334b02c6ec4e8664a91979669a501ec497792",
        "facebook/musicgen-medium": "d3bd7b00761b78ad7a8a05145ee31e7832e9916c",
        "facebook/musicgen-large": "15ccdc92099879e47b6da12c350cdb71d4eab3ca",
        "facebook/musicgen-melody": "68d653a95788ec0d2b0abccab22c0b3a200c2d90",
        "facebook/musicgen-melody-large": "6fdf8d3d815995108c9bdb5183414ff464b171ac",
        "facebook/audiogen-medium": "1277dd7dfd8fa57a205a70acc5de0ee90804502f",
        "t5-base": "a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1",
        "t5-large": "150ebc2c4b72291e770f58e6057481c8d2ed331a",
        "adefossez/HTDemucs": "cbc8a9b1a87023b7fd74e7b3412e6321c0eab003",
        "adefossez/HTDemucs-ft": "d74ac89c3a1e874fc78f152555cf4d8533f06cd4",
        "adefossez/HTDemucs-6s": "3c5ee475be622df764938de97e4281a7b07ffa58",
        "lengyue233/content-vec-best": "c0b9ba13db21beaa4053faae94c102ebe326fd68",
        "lj1995/VoiceConversionWebUI": "e6d0c1a17da07c33557852f9dfa2bd44cc75737d",
        "ACE-Step/Ace-Step1.5": "19671f406d603126926c1b7e2adc169acbcade22",
        "ACE-Step/acestep-v15-turbo-shift1": "5b86586cc1faecd5214281b05440c8903b6da20f",
        "ACE-Step/acestep-v15-turbo-shift3": "625a282f7c8d882c930a5e500be4c82800f84fb4",
        "ACE-Step/acestep-v15-turbo-continuous": "f8e893768347fd42f5988e07d1d80675fc3e5718",
        "ACE-Step/acestep-v15-sft": "c410d249e71ea9385a7b586865e65b1473e1098d",
        "ACE-Step/acestep-v15-base": "e432212fec32b8965a14ffa57ae653438d6abd14",
        "ACE-Step/acestep-v15-xl-turbo": "d4a0b288b83ebb7e25a8c0b32c573c22e134e8ee",
        "ACE-Step/acestep-v15-xl-sft": "d06de46b4622f781cf07f4a013a67d591ca52819",
        "ACE-Step/acestep-v15-xl-base": "220c1166efbdd9583eafcb12eb160594bbfcb241",
        "ACE-Step/acestep-5Hz-lm-0.6B": "148d8ea0225bdab342ee1ae3a354275ccd60ca80",
        "ACE-Step/acestep-5Hz-lm-4B": "0a3ec94b557aea7d508da38b31cfe7341f6ff737",
    }
)
"""Commits by repository. Of a repository that is not listed here, the newest revision is downloaded."""
