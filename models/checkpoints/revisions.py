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
    }
)
"""Commits by repository. Of a repository that is not listed here, the newest revision is downloaded."""
