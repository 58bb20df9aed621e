"""EnCodec in both formats, compared with audiocraft's and transformers' own on the same random weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings
from models.encodec.codec import Codec
from models.encodec.load import from_audiocraft, from_folder
from models.musicgen.load import read_weights
from models.musicgen.xp_config import read_xp_config
from testing.audiocraft_reference import load_audiocraft_codec
from testing.tiny_musicgen import Shape, codec_settings, write_checkpoint, write_hub_codec


@pytest.mark.parametrize("frames", [1, 7, 130])
@pytest.mark.parametrize("stereo", [False, True])
def test_decoding_and_encoding_equal_audiocrafts(tmp_path: Path, frames: int, stereo: bool) -> None:
    folder = write_checkpoint(tmp_path / "model", Shape(stereo=stereo))
    package, state = read_weights(folder / "compression_state_dict.bin")
    model = from_audiocraft(state, package.settings, "cpu")
    ours, theirs = Codec(model, codebooks=4, stereo=stereo), load_audiocraft_codec(folder)
    codes = torch.randint(32, (2, ours.codebooks, frames), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = torch.cat([theirs.decode(channel) for channel in ours.split_channels(codes)], dim=1)
        torch.testing.assert_close(ours.decode(codes), wanted, atol=1e-5, rtol=0)
        again = torch.stack([theirs.encode(channel[:, None])[0] for channel in wanted.unbind(1)], dim=2).flatten(1, 2)
        assert torch.equal(ours.encode(wanted), again)


@pytest.mark.parametrize("final", [None, "Tanh"])
def test_a_codec_without_lstm_loads_from_audiocrafts_format(final: str | None) -> None:
    from omegaconf import OmegaConf

    from models.musicgen.audiocraft_import import import_audiocraft

    import_audiocraft()
    config = codec_settings(16_000)
    config["seanet"] |= {"lstm": 0, "pad_mode": "reflect", "n_residual_layers": 2}
    config["seanet"]["decoder"]["final_activation"] = final
    builders = importlib.import_module("audiocraft.models.builders")
    theirs = builders.get_compression_model(OmegaConf.create(config | {"device": "cpu"})).eval()
    ours = Codec(from_audiocraft(theirs.state_dict(), Settings(read_xp_config(config)), "cpu"), codebooks=4)
    codes = torch.randint(32, (1, 4, 50), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours.decode(codes), theirs.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "ReLU"},
        {"norm": "layer_norm"},
        {"channels": 2},
        {"decoder": {"final_activation": "Linear"}},
        {"decoder": {"final_activation": "Tanh", "final_activation_params": {"inplace": True}}},
    ],
)
def test_a_codec_with_unsupported_settings_is_refused(change: dict[str, object]) -> None:
    config = codec_settings(16_000)
    config["seanet"] |= change
    with pytest.raises(CheckpointError, match="not supported"):
        from_audiocraft({}, Settings(read_xp_config(config)), "cpu")


def test_a_codec_decodes_in_chunks_without_a_seam(tmp_path: Path) -> None:
    network = from_folder(write_hub_codec(tmp_path / "codec"), "cpu")
    codes = torch.randint(32, (1, 4, 400), generator=torch.Generator().manual_seed(1))
    reported: list[float] = []
    with torch.inference_mode():
        whole = Codec(network, codebooks=4).decode(codes)
        chunked = Codec(network, codebooks=4, chunk_s=1.0).decode(codes, progress=reported.append)
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=0)
    assert reported == [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pad_mode": "constant"},
        {"use_causal_conv": True},
        {"use_causal_conv": True, "trim_right_ratio": 0.3},
        {"use_conv_shortcut": False, "num_residual_layers": 3, "num_lstm_layers": 1},
        {"compress": 1, "kernel_size": 5, "last_kernel_size": 3, "residual_kernel_size": 5, "dilation_growth_rate": 3},
    ],
)
@pytest.mark.parametrize("frames", [1, 2, 90])
def test_a_codec_in_transformers_format_equals_transformers_encodec(
    tmp_path: Path, changes: dict[str, Any], frames: int
) -> None:
    from transformers import EncodecModel

    theirs: Any = EncodecModel.from_pretrained(write_hub_codec(tmp_path, **changes))  # in eval mode
    ours = Codec(from_folder(tmp_path, "cpu"), codebooks=4)
    codes = torch.randint(32, (2, 4, frames), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = theirs.decoder(theirs.quantizer.decode(codes.transpose(0, 1)))
        torch.testing.assert_close(ours.decode(codes), wanted, atol=1e-5, rtol=1e-4)
        odd = wanted[..., : wanted.shape[-1] - 3]  # not a whole number of frames
        found = theirs.quantizer.encode(theirs.encoder(odd), bandwidth=None).transpose(0, 1)[:, :4]
        assert torch.equal(ours.encode(odd), found)
