"""Random requests and damaged files against the whole worker: every request must end with a clean reply.

    python -m testing.fuzz --requests 5000

Requests are drawn from each operation's own JSON schema: valid values, values at and beyond the bounds, values of other
types, unknown fields. Audio is drawn as sound of odd rates, channels and lengths in every container, valid or damaged;
model files, voices and archives are damaged by bytes and by structure (headers, pickles, YAML). A reply is clean if it
is JSON, a success or one error with a documented code other than `internal_error`, and names no secret, no path of this
machine and no base64. The request must stay as it was, and no temporary file and no descriptor may be left behind.
"""

from __future__ import annotations

import argparse
import base64
import copy
import json
import logging
import math
import os
import random
import re
import resource
import shutil
import string
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import ErrorCode
from testing.suno_provider import TOKEN
from testing.tiny_volume import MUSIC, PLANNER, ROFORMER, SEPARATION, SONGS, VOICE, list_settings, write_volume

MAX_ERROR_BYTES = 10_000
SECRETS = {
    "SUNO_API_TOKEN": TOKEN,
    "BUCKET_ACCESS_KEY_ID": "bucket-key-91bc",
    "BUCKET_SECRET_ACCESS_KEY": "bucket-secret-55de",
    "HF_TOKEN": "hub-secret-c0de",
}
LONG_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{200,}")
ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2**31, -(2**63), 10**400, 0.5, -0.0, 1e308, 5e-324, math.nan, math.inf, "", " ", "0",
    "nan", "\x00", "\ud800", "a" * 5000, "../../etc/passwd", "${oc.env:HOME}", "{{7*7}}", "<script>", [], {}, [[]],
    [None], {"a": {"b": []}}, ["x"] * 50, {"$ref": "#"},
)  # fmt: skip
ADDRESSES = (
    "http://127.0.0.1:9/a.wav", "http://169.254.169.254/latest", "http://[::1]/a", "file:///etc/passwd", "http://",
    "https://localhost.invalid/a.mp3", "ftp://example.invalid/a", "http://0x7f000001/", "data:audio/wav;base64,",
    "data:,", "/etc/passwd", "/proc/self/environ", "../rvc_models",
)  # fmt: skip


@dataclass
class Fuzz:
    """Draws the requests of one run from its seed, and keeps what went wrong."""

    seed: int
    volume: Path
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self._songs = make_songs(self.draw)
        self._files = FileDamage(self.draw)
        self._numbers = 0

    def draw_request(self) -> tuple[str, dict[str, Any]]:
        """A description and an input: an operation's parameters, or a request that reads a damaged file."""
        if self.draw.random() < 0.3:
            return self._draw_damaged_file()
        from operations.operation import load_operations

        name = self.draw.choice(list(load_operations()))
        schema = load_operations()[name].params.model_json_schema()
        return name, self._draw_envelope(name, self._draw_params(name, schema))

    def _draw_envelope(self, name: str, params: dict[str, Any]) -> dict[str, Any]:
        chance = self.draw.random()
        if chance < 0.5:
            return {"operation": name, **params}
        if chance < 0.95:
            return {"operation": name, "params": params}
        odd = self.draw.choice(ODD_VALUES)
        return self.draw.choice(
            [{"operation": odd, "params": params}, {"operation": name, "params": odd}, {"params": params}]
        )

    def _draw_params(self, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the schema's fields. Most are valid, so that many requests get past the validation."""
        fields: dict[str, Mapping[str, Any]] = dict(schema["properties"])
        wild = self.draw.choice((0.0, 0.0, 0.02, 0.2))
        params = {key: value for key, value in self._choose_base(name).items() if self.draw.random() < 0.97}
        for key in self.draw.sample(sorted(fields), self.draw.randint(0, min(len(fields), 6))):
            if key not in params:
                params[key] = self.draw_value(key, fields[key], schema.get("$defs", {}))
        for key in list(params):
            if self.draw.random() < wild:
                params[key] = self.draw.choice(ODD_VALUES)
        if self.draw.random() < wild:
            params["".join(self.draw.choices(string.printable, k=self.draw.randint(1, 30)))] = 1
        return params

    def _choose_base(self, name: str) -> dict[str, Any]:
        """What a request of the operation needs to succeed, kept short."""
        song = self.draw_audio()
        bases: Mapping[str, Sequence[dict[str, Any]]] = {
            "generate_music": (
                {"prompt": "slow piano", "model": MUSIC, "duration": 0.5, "n_samples": 1},
                {"prompt": ["bass", "drums"], "model": MUSIC, "duration": 0.6, "n_samples": 1},
                {"continuation_audio": song, "continuation_end": 0.5, "model": MUSIC, "duration": 0.5, "n_samples": 1},
                {"prompt": "piano", "model": SONGS, "duration": 2, "n_samples": 1, "inference_steps": 1},
            ),
            "edit_music": (
                {"audio": song, "task": "cover", "inference_steps": 1, "n_samples": 1},
                {"audio": song, "task": "extract", "track": "drums", "inference_steps": 1, "n_samples": 1},
                {"audio": song, "task": "repaint", "repainting_end": 0.5, "inference_steps": 1, "n_samples": 1},
            ),
            "plan_music": (
                {"mode": "sample", "planner": PLANNER, "duration": 10},
                {"mode": "understand", "planner": PLANNER, "audio_codes": [1, 2, 3]},
                {"mode": "random"},
            ),
            "release_task": (
                {"prompt": "piano", "audio_duration": 10, "inference_steps": 1, "batch_size": 1},
                {"src_audio": song, "task_type": "cover", "inference_steps": 1, "batch_size": 1},
            ),
            "format_input": ({"prompt": "piano", "param_obj": {"duration": 10}},),
            "separate": (
                {"audio": song, "model": SEPARATION, "shifts": 0, "overlap": 0.25},
                {"audio": song, "model": ROFORMER, "shifts": 0, "overlap": 0.25},
            ),
            "generate_cover": (
                {"voice_audio": song, "instrument_audio": self.draw_audio(), "voice_model": VOICE, "f0_method": "pm"},
                {"audio": song, "voice_model": VOICE, "f0_method": "pm"},
            ),
            "mix_audio": (
                {"tracks": [{"audio": song}, {"audio": self.draw_audio(), "pan": 0.5, "duck_under": 0}]},
                {"tracks": [{"audio": song, "time_stretch": 1.5}] * 2, "master": [{"effect": "reverb"}]},
            ),
            "pipeline": (
                {"steps": [
                    {"id": "a", "operation": "mix_audio", "params": {"tracks": [{"audio": song}] * 2}},
                    {"id": "b", "operation": "analyze", "params": {"audio": self.draw.choice(("$a", "$b", "$a.x"))}},
                ], "return": [self.draw.choice(("$a", "$b", "$c", "$a.outputs.1"))]},
                {"steps": [
                    {"id": "parts", "operation": "separate", "params": {"audio": song, "model": SEPARATION}},
                    {"id": "b", "operation": "encode_audio", "params": {"audio": "$parts.stems.bass", "model": MUSIC}},
                    {"id": "c", "operation": "decode_audio", "params": {"codes": "$b.codes"}},
                ], "partial": True},
            ),
            "encode_audio": ({"audio": song, "model": MUSIC}, {"audio": song, "model": MUSIC, "return_audio": True}),
            "decode_audio": ({"codes": [[1, 2, 3], [4, 5, 6]], "model": MUSIC}, {"codes": song, "model": MUSIC}),
            "add_voice": ({"name": "fuzz", "archive": str(self.volume / "uploads" / "new.zip"), "replace": True},),
            "extend_via_suno": (
                {"audio": song, "max_wait_s": 0, "mode": "wait"},
                {"task_id": "task-1", "max_wait_s": 0, "mode": "poll"},
                {"audio_id": "a", "max_wait_s": 0, "mode": "submit"},
            ),
        }  # fmt: skip
        return dict(self.draw.choice(bases.get(name, ({},))))

    def draw_value(self, key: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
        """A value that the field's schema allows, often one at its bounds."""
        if "audio" in key and key not in ("audio_weight", "audio_id") and _allows(schema, "string"):
            return self.draw_audio()
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
        for several in ("anyOf", "allOf", "oneOf"):
            if several in schema:
                return self.draw_value(key, self.draw.choice(schema[several]), definitions)
        if "enum" in schema or "const" in schema:
            return self.draw.choice(schema.get("enum", [schema.get("const")]))
        kind = schema.get("type")
        if kind in ("number", "integer"):
            low = schema.get("minimum", schema.get("exclusiveMinimum", -5))
            high = schema.get("maximum", schema.get("exclusiveMaximum", low + 10))
            value = self.draw.choice(
                (low, high, low - 1, high + 1, self.draw.uniform(low, high), schema.get("default"))
            )
            return int(value) if kind == "integer" and isinstance(value, float) else value
        if kind == "boolean":
            return self.draw.random() < 0.5
        if kind == "array":
            item = schema.get("items", {})
            return [self.draw_value(key, item, definitions) for _ in range(self.draw.randint(0, 4))]
        if kind == "string":
            length = self.draw.choice((0, 1, 8, schema.get("maxLength", 40), schema.get("maxLength", 40) + 1))
            return "".join(self.draw.choices(string.printable + "äß漢🎵", k=min(length, 5000)))
        return None if kind == "null" else self.draw.choice(ODD_VALUES)

    def draw_audio(self) -> str:
        """An audio field: base64, a data URI, a path or an address; valid in two of three cases."""
        chance = self.draw.random()
        data = self.draw.choice(self._songs)
        if chance < 0.1:
            return self.draw.choice(ADDRESSES)
        if chance < 0.3:
            data = self._files.damage_bytes(data)
        text = base64.b64encode(data).decode()
        if chance < 0.35:
            return text[: self.draw.randrange(len(text) + 1)]
        if chance < 0.45:
            return f"data:audio/{self.draw.choice(('wav', 'mpeg', 'x'))};base64,{text}"
        if chance < 0.5:
            path = self.volume / "odd.bin"
            path.write_bytes(data)
            return str(path)
        return text

    def _draw_damaged_file(self) -> tuple[str, dict[str, Any]]:
        """Replaces a model or a voice by a damaged copy of a good one, and asks for it."""
        self._numbers += 1
        models, voices = self.volume / "models", self.volume / "rvc_models"
        song = base64.b64encode(self._songs[0]).decode()
        cover = {"operation": "generate_cover", "voice_audio": song, "instrument_audio": song, "f0_method": "pm"}
        kind = self.draw.choice(("music", "separation", "roformer", "voice", "archive", "list", "hubert", "rmvpe"))
        if kind in ("hubert", "rmvpe"):
            name = {"hubert": "hubert_base.pt", "rmvpe": "rmvpe.pt"}[kind]
            self._damage_in_place(models / name)
            return f"damaged {name}", cover | {"voice_model": VOICE, "f0_method": self.draw.choice(("rmvpe", "pm"))}
        if kind == "archive":
            source = (self.volume / "uploads" / "new.zip").read_bytes()
            (self.volume / "odd.zip").write_bytes(self._files.damage(source, ".zip"))
            request = {"operation": "add_voice", "name": "fuzz", "archive": str(self.volume / "odd.zip")}
            return "damaged archive", request | {"replace": True}
        if kind in ("voice", "list"):
            self._damage_folder(voices / VOICE, voices / "odd")
            if kind == "list":
                self._damage_folder(models / MUSIC, models / "odd")
                return "damaged folders in list_models", {"operation": "list_models"}
            return "damaged voice", cover | {"voice_model": "odd"}
        if kind == "music":
            self._damage_folder(models / MUSIC, models / "odd")
            return "damaged music model", {
                "operation": "generate_music",
                "prompt": "a",
                "model": "odd",
                "duration": 0.5,
            }
        if kind == "roformer":
            self._damage_folder(models / ROFORMER, models / "odd")
            return "damaged RoFormer", {
                "operation": "separate",
                "audio": song,
                "model": self.draw.choice(("odd", ROFORMER)),
            }
        self._damage_folder(models / SEPARATION, models / "odd")
        (models / "odd" / f"{SEPARATION}.yaml").rename(models / "odd" / "odd.yaml")
        return "damaged separation model", {"operation": "separate", "audio": song, "model": "odd"}

    def _damage_folder(self, good: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(good, target)
        path = self.draw.choice(sorted(path for path in target.rglob("*") if path.is_file()))
        path.write_bytes(self._files.damage(path.read_bytes(), path.suffix))

    def _damage_in_place(self, path: Path) -> None:
        good = path.with_suffix(".good")
        if not good.exists():
            shutil.copy(path, good)
        data = good.read_bytes()
        path.write_bytes(self._files.damage(data, path.suffix) if self.draw.random() < 0.8 else data)


def _allows(schema: Mapping[str, Any], kind: str) -> bool:
    options = schema.get("anyOf", [schema])
    return any(option.get("type") == kind for option in options)


@dataclass
class FileDamage:
    """Damages files: by bytes, or inside of what their structure encodes."""

    draw: random.Random

    def damage(self, data: bytes, suffix: str) -> bytes:
        """A damaged copy of a file. The name's suffix says what structure it has."""
        structured: Mapping[str, Callable[[bytes], bytes]] = {
            ".zip": self._damage_zip,
            ".ckpt": self._damage_zip,
            ".pth": self._damage_zip,
            ".pt": self._damage_zip,
            ".bin": self._damage_zip,
            ".th": self._damage_zip,
            ".safetensors": self._damage_safetensors,
            ".json": self._damage_json,
            ".yaml": self._damage_text,
        }
        change = structured.get(suffix)
        if change is None or self.draw.random() < 0.4:
            return self.damage_bytes(data)
        return change(data)

    def damage_bytes(self, data: bytes) -> bytes:
        """Cuts, flips, repeats, inserts or clears bytes; more often near the start, where headers are."""
        if not data:
            return self.draw.randbytes(10)
        changed = bytearray(data)
        for _ in range(self.draw.choice((1, 1, 2, 8, 40))):
            span = len(changed) if self.draw.random() < 0.5 else min(len(changed), 256)
            at, size = self.draw.randrange(max(span, 1)), self.draw.choice((1, 2, 4, 8, 64))
            action = self.draw.randrange(6)
            if action == 0:
                del changed[at:]
            elif action == 1:
                changed[at : at + size] = self.draw.randbytes(size)
            elif action == 2:
                changed[at : at + size] = self.draw.choice((b"\x00", b"\xff", b"\x7f")) * size
            elif action == 3:
                changed[at:at] = changed[at : at + size] * self.draw.randint(1, 50)
            elif action == 4:
                del changed[at : at + size]
            elif changed:
                changed[min(at, len(changed) - 1)] ^= 1 << self.draw.randrange(8)
        return bytes(changed)

    def _damage_zip(self, data: bytes) -> bytes:
        """Writes the archive again with one member damaged, renamed, doubled, emptied or left out."""
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
            source.write(data)
            try:
                with zipfile.ZipFile(source) as archive:
                    members = {info.filename: archive.read(info) for info in archive.infolist()}
            except zipfile.BadZipFile:
                return self.damage_bytes(data)
            chosen = self.draw.choice(sorted(members))
            pickles = [name for name in members if name.endswith((".pkl", ".pth"))]
            if pickles and self.draw.random() < 0.5:
                chosen = self.draw.choice(pickles)
            action = self.draw.randrange(5)
            kind = zipfile.ZIP_DEFLATED if self.draw.random() < 0.2 else zipfile.ZIP_STORED
            with zipfile.ZipFile(target, "w", kind) as archive:
                for name, content in members.items():
                    if name != chosen:
                        archive.writestr(name, content)
                    elif action < 2:
                        archive.writestr(name, self.damage_bytes(content))
                    elif action == 2:
                        archive.writestr(self.draw.choice(("../x", "/x", "a" * 300, "x/data.pkl", "ü")), content)
                    elif action == 3:
                        archive.writestr(name, b"")
            target.seek(0)
            return target.read()

    def _damage_safetensors(self, data: bytes) -> bytes:
        """Changes a value of the JSON header and writes the file with the right header length."""
        size = int.from_bytes(data[:8], "little")
        header = self._damage_json(data[8 : 8 + size])
        return len(header).to_bytes(8, "little") + header + data[8 + size :]

    def _damage_json(self, data: bytes) -> bytes:
        """Replaces a value somewhere in the document, or nests one deeply."""
        root: dict[str, Any] = {"document": json.loads(data)}
        container: Any = root
        key: Any = "document"
        while isinstance(at := container[key], dict | list) and at and self.draw.random() < 0.8:
            container, key = at, self.draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
        odd = [value for value in ODD_VALUES if value != "\ud800"] + [json.loads("[" * 900 + "]" * 900), "9" * 400]
        container[key] = self.draw.choice(odd)
        return json.dumps(root["document"]).encode()

    def _damage_text(self, data: bytes) -> bytes:
        """Replaces a word of a YAML file by something odd."""
        words = re.split(r"(\W+)", data.decode("utf-8", "replace"))
        odd = ("!!python/object:os.system", "&a [*a]", ".inf", ".nan", "9" * 400, "{" * 300, "[]", "-1", "~", "'", "\t")
        words[self.draw.randrange(len(words))] = self.draw.choice(odd)
        return "".join(words).encode()


def make_songs(draw: random.Random) -> list[bytes]:
    """Short sound in every container, with odd rates, channel counts, lengths and levels. The first is plain."""
    from audio.files.formats import Encoding
    from testing.signals import encode_file, make_tone

    songs = [encode_file(make_tone(0.8), Encoding("wav"))]
    for rate in (8_000, 11_025, 16_000, 22_254, 44_056, 44_101, 96_000, 192_000):
        tone = make_tone(draw.choice((0.1, 0.5, 1.0)), sample_rate=rate, channels=draw.choice((1, 2)))
        songs.append(encode_file(tone, Encoding(draw.choice(("wav", "flac")), bit_depth=draw.choice((16, 24)))))
    for encoding in (Encoding("mp3", bitrate=128), Encoding("ogg", bitrate=96), Encoding("opus", bitrate=64)):
        songs.append(encode_file(make_tone(0.6, sample_rate=48_000), encoding))
    songs.append(encode_file(make_tone(1 / 44_100), Encoding("wav")))
    songs.append(encode_file(make_tone(0.3, level=40.0), Encoding("wav", bit_depth=32)))
    songs.append(encode_file(make_tone(0.3, level=1e-30), Encoding("wav", bit_depth=32)))
    return songs


def check_reply(reply: object, forbidden: Sequence[str]) -> list[str]:
    """What is wrong with a reply; `forbidden` may not stand in it."""
    if not isinstance(reply, dict):
        return [f"the reply is a {type(reply).__name__}"]
    try:
        text = json.dumps(reply, allow_nan=False)
    except (TypeError, ValueError) as error:
        return [f"the reply is not JSON: {error}"]
    if reply.get("success") is True:
        return [f"the reply names {word!r}" for word in forbidden if word in text and not word.startswith("/")]
    problems = []
    code = reply.get("error_code")
    if not isinstance(reply.get("error"), str) or not reply["error"] or code not in set(ErrorCode):
        problems.append("the reply is neither a success nor an error")
    if code == ErrorCode.INTERNAL_ERROR:
        problems.append(f"internal_error: {reply['error'][:300]}")
    if len(text) > MAX_ERROR_BYTES:
        problems.append(f"the error has {len(text)} bytes")
    if "Traceback" in text or LONG_BASE64.search(text):
        problems.append("the error has a traceback or base64")
    return problems + [f"the error names {word!r}" for word in forbidden if word in text]


def run_fuzz(home: Path, *, requests: int, seed: int, timeout_s: float = math.inf) -> dict[str, Any]:
    """Sends up to `requests` requests within `timeout_s` and returns the run's figures; `problems` must be empty."""
    from testing.suno_provider import Provider, serve_provider
    from testing.suno_scenarios import SCENARIOS

    volume = write_volume(home / "volume")
    with serve_provider(Provider(SCENARIOS["happy"], balance=10**9)) as provider:
        environment = list_settings(volume) | SECRETS | {"SUNO_RATE_LIMIT": "10000"}
        environment |= {"SUNO_API_BASE_URL": provider.url, "SUNO_UPLOAD_BASE_URL": provider.url}
        return _send_requests(home / "temp", Fuzz(seed, volume), environment, requests=requests, timeout_s=timeout_s)


def _send_requests(
    temp: Path, fuzz: Fuzz, environment: Mapping[str, str], *, requests: int, timeout_s: float
) -> dict[str, Any]:
    from handler import run_job
    from worker.job import build_job
    from worker.settings import Settings

    temp.mkdir()
    settings = Settings.from_env(environment)
    forbidden = [*SECRETS.values(), str(temp), str(Path(__file__).resolve().parent.parent)]
    before = _count_descriptors()
    old_temp, tempfile.tempdir = tempfile.tempdir, str(temp)
    logging.disable(logging.CRITICAL)
    started, done = time.monotonic(), 0
    try:
        while done < requests and time.monotonic() - started < timeout_s:
            description, request = fuzz.draw_request()
            original, sent = copy.deepcopy(request), time.monotonic()
            job = build_job({"input": request}, job_id=f"fuzz-{done}", timeout_s=0)
            reply = run_job(job, settings)
            problems = check_reply(reply, forbidden)
            if repr(request) != repr(original):
                problems.append("the request was changed")
            if left := [path.name for path in temp.rglob("*")]:
                problems.append(f"left in the temporary folder: {left}")
                shutil.rmtree(temp)
                temp.mkdir()
            seconds = time.monotonic() - sent
            fuzz.slowest = sorted([*fuzz.slowest, (round(seconds, 1), description)], reverse=True)[:5]
            fuzz.counts[str(reply.get("error_code", "success"))] += 1
            fuzz.problems += [f"request {done} ({description}): {problem}" for problem in problems]
            done += 1
    finally:
        tempfile.tempdir = old_temp
        logging.disable(logging.NOTSET)
    if (after := _count_descriptors()) > before + 5:
        fuzz.problems.append(f"descriptors grew from {before} to {after}")
    return {
        "seed": fuzz.seed,
        "requests": done,
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "descriptors": [before, after],
        "slowest_s": fuzz.slowest,
        "replies": dict(fuzz.counts.most_common()),
        "problems": fuzz.problems,
    }


def _count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def main() -> int:
    """Prints the figures; returns 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000, help="number of requests (default: 5000)")
    parser.add_argument("--seed", type=int, default=None, help="a random one if left out")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"fuzz: seed {seed}, {arguments.requests} requests", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures = run_fuzz(Path(folder), requests=arguments.requests, seed=seed)
    print(json.dumps(figures, indent=2))
    return 1 if figures["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
