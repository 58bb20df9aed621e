"""Builds the models that the settings describe. Models and settings do not import each other."""

from __future__ import annotations

from models import Models
from models.registry import DEMO, build
from models.suno import SunoConfig, SunoFamily
from worker.http.client import HttpClient
from worker.http.connection import Timeout
from worker.settings import Settings


def models_for(settings: Settings) -> Models:
    """Every family, with nothing loaded; folders, hub and device are read when a request needs them."""
    return build(
        device=settings.device,
        budget_bytes=settings.model_memory_bytes,
        models_dir=settings.models_dir,
        volume_dirs=settings.volume_dirs,
        download_dir=settings.hf_hub_cache or (settings.hf_home and settings.hf_home / "hub"),
        pin_models=settings.pin_models,
        demo_dir=DEMO if settings.demo_models else None,
        torch_home=settings.find_torch_home(),
        voices_dir=settings.rvc_models_dir,
        voice_uploads=settings.allow_voice_upload,
        cuda_graphs=settings.cuda_graphs,
        suno=SunoFamily(suno_config(settings), http=suno_http()),
    )


def suno_config(settings: Settings) -> SunoConfig:
    """The Suno provider of the settings."""
    return SunoConfig(
        token=settings.suno_api_token,
        base_url=settings.suno_api_base_url,
        upload_url=settings.suno_upload_base_url,
        callback_url=settings.suno_callback_url,
        submissions_per_minute=settings.suno_rate_limit,
        download_timeout_s=settings.download_timeout_s,
        max_clip_bytes=settings.max_input_bytes,
        allow_private_urls=settings.allow_private_urls,
    )


def suno_http() -> HttpClient:
    """The client for a Suno provider. Its URL is the operator's, not a caller's, so it may be a private address."""
    return HttpClient(timeout=Timeout(connect_s=5.0), allow_private=True)
