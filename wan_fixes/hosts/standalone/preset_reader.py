"""From a OneTrainer preset (or saved configuration) to a :class:`Preset`, with every fault named."""

from __future__ import annotations

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.concepts import Concept, read_concepts
from wan_fixes.hosts.standalone.migrations import migrate_train_config
from wan_fixes.hosts.standalone.onetrainer_fields import (
    CLOUD,
    NEWEST_VERSION,
    OLDEST_VERSION,
    OPTIMIZER,
    TEXT_ENCODER,
    TRAIN,
    TRANSFORMER,
    VAE,
    Field,
)
from wan_fixes.hosts.standalone.preset import DEFAULT_SEED, OptimizerSettings, Preset
from wan_fixes.hosts.standalone.preset_sizes import read_frames, read_resolution
from wan_fixes.hosts.standalone.reading import FieldNote, FieldReader, as_limit, missing_path, read_json, resolve_input
from wan_fixes.hosts.standalone.samples import SampleDefinition, read_samples
from wan_fixes.models.locate import named_like, named_model
from wan_fixes.wan.lora_keys import LORA_FORMATS, LoraFormat
from wan_fixes.wan.variants import VARIANTS, WanVariant

SCHEDULERS = ("CONSTANT", "LINEAR", "COSINE")
DISTRIBUTIONS = ("UNIFORM", "LOGIT_NORMAL")
OPTIMIZERS = ("ADAMW", "ADAM", "SGD")
TIME_UNITS = ("EPOCH", "STEP", "SECOND", "MINUTE", "HOUR", "NEVER", "ALWAYS")

_WEIGHT_DTYPES = ("FLOAT_32", "BFLOAT_16", "FLOAT_16")
_TRAIN_DTYPES = ("FLOAT_32", "BFLOAT_16")
_UNDECIDED_FORMATS = ("SAFETENSORS", "LEGACY_LORA")  # they leave the choice to the model
_OWN_FIELDS = {"seed": Field(DEFAULT_SEED, "used")}


def read_preset(path: str | Path, *, needs_model: bool = True) -> Preset:
    """Read and check a preset, its concepts and its sample definitions.

    Parameters
    ----------
    needs_model:
        With False, the model's folder need not be there.

    Raises
    ------
    UserError
        Naming the file, the field, the reason and the fix, when training as asked is not possible.
    """
    file = Path(path).expanduser().absolute()
    data = read_json(file, "preset")
    notes: list[FieldNote] = []
    if isinstance(data, dict):
        _check_version(data, file, notes)
        data = migrate_train_config(data)
    reader = FieldReader(data, {**TRAIN, **_OWN_FIELDS}, file=file, notes=notes)
    variant = _variant(reader)
    reader.choice_of_host("training_method", ("LORA",), 'only LoRAs are trained here: set "training_method" to "LORA"')
    reader.sweep()
    return _Parts(reader, variant, needs_model=needs_model).preset()


class _Parts:
    """The readers of one preset and its sections."""

    def __init__(self, reader: FieldReader, variant: WanVariant, *, needs_model: bool) -> None:
        self.reader = reader
        self.needs_model = needs_model
        self.variant = variant
        self.folders = (reader.file.parent, Path.cwd())
        self.transformer = self._section("transformer", TRANSFORMER)
        self.text_encoder = self._section("text_encoder", TEXT_ENCODER)
        self.vae = self._section("vae", VAE)
        self.optimizer = self._section("optimizer", OPTIMIZER)

    def preset(self) -> Preset:
        reader = self.reader
        self._check_what_is_trained()
        self._note_what_differs()
        low, high = self._noising_bounds()
        base_model, model_name = self._base_model()
        return Preset(
            path=reader.file,
            model_type=self.variant.name,
            base_model_name=base_model,
            model_name=model_name,
            workspace_dir=self._output_folder("workspace_dir"),
            cache_dir=self._output_folder("cache_dir"),
            output_model_destination=self._destination(),
            output_dtype=self._dtype(reader, "output_dtype"),
            concepts=self._concepts(),
            resolution=read_resolution(reader, self.variant),
            frames=read_frames(reader, self.variant),
            aspect_ratio_bucketing=reader.boolean("aspect_ratio_bucketing"),
            latent_caching=reader.boolean("latent_caching"),
            batch_size=reader.integer("batch_size", minimum=1),
            gradient_accumulation_steps=reader.integer("gradient_accumulation_steps", minimum=1),
            epochs=reader.integer("epochs", minimum=1),
            learning_rate=self._learning_rate(),
            learning_rate_scheduler=reader.choice_of_host(
                "learning_rate_scheduler", SCHEDULERS, "choose one of these; COSINE comes closest to most others"
            ),
            learning_rate_warmup_steps=reader.number("learning_rate_warmup_steps", minimum=0),
            learning_rate_min_factor=reader.number("learning_rate_min_factor", minimum=0, maximum=1),
            optimizer=self._optimizer(),
            clip_grad_norm=None if reader.value("clip_grad_norm") is None else self._positive("clip_grad_norm"),
            train_device=self._device(),
            train_dtype=self._train_dtype(),
            transformer_weight_dtype=self._dtype(self.transformer, "weight_dtype"),
            text_encoder_weight_dtype=self._dtype(self.text_encoder, "weight_dtype"),
            vae_weight_dtype=self._dtype(self.vae, "weight_dtype"),
            gradient_checkpointing=self.transformer.boolean("gradient_checkpointing"),
            lora_rank=reader.integer("lora_rank", minimum=1),
            lora_alpha=reader.number("lora_alpha", minimum=0),
            lora_dropout=reader.number("dropout_probability", minimum=0, maximum=0.99),
            lora_weight_dtype=reader.choice("lora_weight_dtype", _TRAIN_DTYPES),
            layer_filter=self._layer_filter(),
            layer_filter_regex=reader.boolean("layer_filter_regex"),
            timestep_distribution=reader.choice(
                "timestep_distribution", DISTRIBUTIONS, "choose one of these; they keep shift and bounds exact"
            ),
            timestep_shift=self._positive("timestep_shift"),
            noising_weight=reader.number("noising_weight"),
            noising_bias=reader.number("noising_bias"),
            min_noising_strength=low,
            max_noising_strength=high,
            caption_dropout=self.text_encoder.number("dropout_probability", minimum=0, maximum=1),
            dataloader_threads=reader.integer("dataloader_threads", minimum=1),
            seed=reader.integer("seed"),
            backup_after=reader.number("backup_after", minimum=0),
            backup_after_unit=reader.choice("backup_after_unit", TIME_UNITS),
            save_every=reader.number("save_every", minimum=0),
            save_every_unit=reader.choice("save_every_unit", TIME_UNITS),
            save_filename_prefix=self._file_prefix(),
            samples=self._samples(),
            output_model_format=self._lora_format(),
            report=tuple(reader.notes),
        )

    def _section(self, name: str, fields: dict[str, Field]) -> FieldReader:
        section = self.reader.section(name, fields)
        section.sweep()
        return section

    def _check_what_is_trained(self) -> None:
        if not self.transformer.boolean("train"):
            raise self.transformer.wrong("train", "true", "the transformer is what a WAN LoRA trains: set it to true")
        if self.text_encoder.given("train") and self.text_encoder.boolean("train"):
            raise self.text_encoder.wrong("train", "false", "WAN's text encoder is not trained here: set it to false")
        cloud = self.reader.section("cloud", CLOUD)
        if cloud.boolean("enabled"):
            raise as_limit(cloud.wrong("enabled", "false", "cloud training is OneTrainer's own: set it to false"))

    def _note_what_differs(self) -> None:
        """Fields that are known, and done in another way than the preset says."""
        reader = self.reader
        if reader.given("clear_cache_before_training") and reader.boolean("clear_cache_before_training"):
            reader.note(
                "clear_cache_before_training",
                "ignored",
                "the cache notices by itself what changed, and makes that anew",
            )
        if reader.boolean("continue_last_backup"):
            reader.note(
                "continue_last_backup", "adjusted", "an interrupted run always goes on; a finished one starts anew"
            )

    def _base_model(self) -> tuple[Path, str]:
        """The model's folder, and its name or repository where that is what the preset has."""
        reader = self.reader
        text = reader.text("base_model_name")
        if not reader.given("base_model_name") or not text:
            raise reader.error("base_model_name", "it is missing", self._model_fix())
        folder = resolve_input(text, self.folders)
        if folder.is_dir():
            return folder, ""
        if folder.exists():
            raise UserError(
                "model folder cannot be used",
                path=folder,
                reason="it is a file; a model in diffusers' layout is a folder",
                fix=self._model_fix(),
            )
        named = named_model(text, self.variant.name)
        if named is not None:
            return named.ensurer().target(named.name).folder, text
        if not self.needs_model:
            return folder, ""
        near = missing_path(folder, "model folder", "base_model_name")
        raise UserError(
            near.what,
            path=folder,
            reason=f"base_model_name is {text!r}, which is no folder and names no model",
            fix=self._model_fix() if near.fix == "correct the path" else near.fix,
        )

    def _model_fix(self) -> str:
        names = " or ".join(named_like(self.variant.name))
        return f"name the model ({names}), {self.variant.repository}, or a folder of it, in base_model_name"

    def _output_folder(self, name: str) -> Path:
        text = self.reader.text(name)
        if not text:
            raise self.reader.wrong(name, "a folder", "name a folder; it is made when it does not exist")
        folder = (Path.cwd() / Path(text).expanduser()).absolute()
        _check_is_no_file(self.reader, name, folder)
        return folder

    def _destination(self) -> Path:
        text = self.reader.text("output_model_destination")
        destination = (Path.cwd() / Path(text).expanduser()).absolute()
        fix = 'name a file, like "models/lora.safetensors"'
        if destination.suffix != ".safetensors":
            raise self.reader.wrong("output_model_destination", "a file that ends in .safetensors", fix)
        if destination.is_dir():
            raise self.reader.error("output_model_destination", f"{destination} is a folder", fix)
        _check_is_no_file(self.reader, "output_model_destination", destination.parent)
        return destination

    def _lora_format(self) -> LoraFormat:
        name = self.reader.value("output_model_format")
        for known in LORA_FORMATS:
            if name == known:
                return known
        if name not in _UNDECIDED_FORMATS:
            reason = "the LoRA is written with diffusers' keys (DIFFUSERS_LORA)"
            self.reader.note("output_model_format", "adjusted", reason)
        return "DIFFUSERS_LORA"

    def _concepts(self) -> tuple[Concept, ...]:
        reader = self.reader
        cache = self._output_folder("cache_dir")
        inline = reader.value("concepts")
        if inline is not None:
            return read_concepts(inline, file=reader.file, folders=self.folders, notes=reader.notes, cache=cache)
        text = reader.text("concept_file_name")
        if not text:
            raise reader.wrong("concept_file_name", "a JSON file", "name your concept file, or give concepts inline")
        file = resolve_input(text, self.folders)
        if not file.exists():
            raise missing_path(file, "concept file", f"concept_file_name in {reader.file}")
        return read_concepts(file, file=file, folders=self.folders, notes=reader.notes, cache=cache)

    def _samples(self) -> tuple[SampleDefinition, ...]:
        reader = self.reader
        inline = reader.value("samples")
        if inline is not None:
            return read_samples(inline, file=reader.file, variant=self.variant, notes=reader.notes)
        text = reader.text("sample_definition_file_name")
        file = resolve_input(text, self.folders) if text else None
        if file is None or not file.exists():
            if file is not None and reader.given("sample_definition_file_name"):
                reader.note(
                    "sample_definition_file_name", "ignored", "there is no such file: a training prompt is used"
                )
            return ()
        return read_samples(file, file=file, variant=self.variant, notes=reader.notes)

    def _learning_rate(self) -> float:
        part = self.transformer
        owner = self.reader if part.value("learning_rate") is None else part
        rate = owner.number("learning_rate")
        if rate <= 0:
            raise owner.wrong("learning_rate", "a number above 0")
        return rate

    def _positive(self, name: str) -> float:
        number = self.reader.number(name)
        if number <= 0:
            raise self.reader.wrong(name, "a number above 0")
        return number

    def _noising_bounds(self) -> tuple[float, float]:
        low = self.reader.number("min_noising_strength", minimum=0, maximum=1)
        high = self.reader.number("max_noising_strength", minimum=0, maximum=1)
        if low >= high:
            raise self.reader.wrong(
                "min_noising_strength", f"less than max_noising_strength ({high:g})", "0 and 1 leave every timestep in"
            )
        return low, high

    def _optimizer(self) -> OptimizerSettings:
        reader = self.optimizer
        name = reader.choice_of_host(
            "optimizer", OPTIMIZERS, "set it to ADAMW, which takes the same learning rates as most others"
        )
        fallback = OptimizerSettings(name=name, weight_decay=0.01 if name == "ADAMW" else 0.0)
        given: dict[str, Any] = {
            part: reader.number(part, minimum=0)
            for part in ("beta1", "beta2", "eps", "weight_decay", "momentum", "dampening")
            if reader.value(part) is not None
        }
        return dataclasses.replace(
            fallback, **given, amsgrad=reader.boolean("amsgrad"), nesterov=reader.boolean("nesterov")
        )

    def _device(self) -> str | None:
        if not self.reader.given("train_device"):
            return None
        device = self.reader.text("train_device")
        if re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
            raise self.reader.wrong("train_device", "cuda, cuda:N or cpu")
        return device

    def _train_dtype(self) -> str:
        reader = self.reader
        if not reader.given("train_dtype"):
            return "BFLOAT_16"
        if reader.value("train_dtype") == "TFLOAT_32":
            reader.note("train_dtype", "adjusted", "trained in FLOAT_32")
            return "FLOAT_32"
        return reader.choice("train_dtype", _TRAIN_DTYPES, "set it to BFLOAT_16, as WAN itself was trained")

    def _dtype(self, reader: FieldReader, name: str) -> str:
        if reader.value(name) == "NONE":
            return self._train_dtype()
        return reader.choice_of_host(
            name, _WEIGHT_DTYPES, "quantised weights are not trained here: set it to BFLOAT_16"
        )

    def _layer_filter(self) -> tuple[str, ...]:
        patterns = tuple(part.strip() for part in self.reader.text("layer_filter").split(",") if part.strip())
        if self.reader.boolean("layer_filter_regex"):
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    reason = f"{pattern!r} is no regular expression: {error}"
                    raise self.reader.error(
                        "layer_filter", reason, "mend it, or set layer_filter_regex to false"
                    ) from None
        return patterns

    def _file_prefix(self) -> str:
        prefix = self.reader.text("save_filename_prefix")
        if Path(prefix).name != prefix and prefix:
            raise self.reader.wrong("save_filename_prefix", "the beginning of a file name, without folders")
        return prefix


def _check_version(data: dict[str, Any], file: Path, notes: list[FieldNote]) -> None:
    version = data.get("__version")
    if version is None:
        return  # OneTrainer's shipped presets have none
    if not isinstance(version, int) or version < OLDEST_VERSION:
        raise UserError(
            "preset is too old",
            path=file,
            reason=f"its configuration version is {version}; {OLDEST_VERSION} is the oldest that is understood",
            fix="open it in a current OneTrainer and save it again",
        )
    if version > NEWEST_VERSION:
        reason = f"newer than {NEWEST_VERSION}, the newest that is known: fields may have changed their meaning"
        notes.append(FieldNote("__version", str(version), "unknown", reason))


def _variant(reader: FieldReader) -> WanVariant:
    supported = [name for name, variant in VARIANTS.items() if variant.standalone]
    name = reader.text("model_type") if reader.given("model_type") else ""
    if name in supported:
        return VARIANTS[name]
    if name in VARIANTS:
        reason = f"{VARIANTS[name].label} is not trained by the standalone host yet"
    elif not name:
        reason = "it is missing"
    else:
        reason = f"{name!r} is not a WAN model type"
    close = difflib.get_close_matches(name, supported, n=1)
    fix = f"did you mean {close[0]}? Supported are " if close else "set it to one of "
    error = reader.error("model_type", reason, fix + ", ".join(supported))
    raise as_limit(error) if name in VARIANTS else error


def _check_is_no_file(reader: FieldReader, name: str, folder: Path) -> None:
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise reader.error(name, f"{place} is a file, and a folder is needed there", "choose another place")
            return
