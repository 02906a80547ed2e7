"""Rules on settings of WAN that are allowed one by one and harm together, or that a host refuses after minutes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding, Correction
from wan_fixes.preflight.values import finite_number, shown

_METHODS: Final = ("LORA", "FINE_TUNE")
#: OneTrainer's distributions that keep shift and bounds exact; both hosts refuse the others.
_DISTRIBUTIONS: Final = ("UNIFORM", "LOGIT_NORMAL")
#: A shift may be so many times that of the model's own sampler before it is taken for a mistake.
_LARGEST_SHIFT: Final = 4.0
_SIDES: Final = {"transformer": "high-noise", "transformer_2": "low-noise"}


def training_method(configuration: Configuration) -> Iterator[ConfigFinding]:
    """A LoRA or the whole transformer: nothing else of WAN is trained."""
    method = configuration.value("training_method")
    if configuration.variant is not None and method not in _METHODS:
        yield ConfigFinding(
            "error",
            "training_method",
            f"WAN cannot be trained by {shown(method)}",
            "its transformers alone are trained",
            f"set it to {' or '.join(_METHODS)}",
        )


def trained_parts(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Some transformer is trained, and of one that is alone all is loaded."""
    variant = configuration.variant
    if variant is None or configuration.experts:
        return
    parts = ("transformer", "transformer_2")[: variant.experts]
    is_loaded = any(configuration.is_on(f"{part}.include") for part in parts)
    yield ConfigFinding(
        "error",
        "transformer.train" if is_loaded else "transformer.include",
        "both experts are switched off" if variant.experts == 2 else "the transformer is switched off",
        "nothing is left to train",
        f"set {'train' if is_loaded else 'include and train'} of {' or '.join(parts)} to true",
        # Of two experts only the user knows which one is meant.
        Correction(f"transformer.{'train' if is_loaded else 'include'}", True) if len(parts) == 1 else None,
    )


def noise_bounds(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Some noise levels are left, and some for each expert that is trained."""
    variant = configuration.variant
    if variant is None:
        return
    low, high = (configuration.number(f"{side}_noising_strength") for side in ("min", "max"))
    if low is None or high is None or not 0 <= low < high <= 1:
        values = [shown(configuration.value(f"{side}_noising_strength")) for side in ("min", "max")]
        yield ConfigFinding(
            "error",
            "min_noising_strength",
            f"the noise levels go from {values[0]} to {values[1]}",
            "they lie between 0 (a clean clip) and 1 (noise alone), the smaller one first",
            "0 and 1 leave every level in",
        )
        return
    boundary = variant.boundary_ratio
    if boundary is None:
        return
    idle = [
        part
        for part in configuration.experts
        if (high <= boundary if _SIDES[part] == "high-noise" else low >= boundary)
    ]
    for part in idle:
        is_all = len(idle) == len(configuration.experts)
        yield ConfigFinding(
            "error" if is_all else "warning",
            "max_noising_strength" if _SIDES[part] == "high-noise" else "min_noising_strength",
            f"the noise levels from {low:g} to {high:g} leave nothing to the {_SIDES[part]} expert",
            f"the experts change at {boundary:g}" + ("" if is_all else ": it is loaded, and never trained"),
            f"widen them, or set {part}.train to false",
        )


def noise_schedule(configuration: Configuration) -> Iterator[ConfigFinding]:
    """A shift and a distribution that WAN is trained with."""
    variant = configuration.variant
    if variant is None:
        return
    if configuration.is_on("dynamic_timestep_shifting"):
        yield ConfigFinding(
            "error",
            "dynamic_timestep_shifting",
            "dynamic timestep shifting is on",
            "WAN's shift is fixed, and both hosts refuse it",
            f"switch it off, and set timestep_shift; the model's own sampler has {variant.default_shift:g}",
            Correction("dynamic_timestep_shifting", False),
        )
    distribution = configuration.value("timestep_distribution")
    if distribution not in _DISTRIBUTIONS:
        yield ConfigFinding(
            "error",
            "timestep_distribution",
            f"the timestep distribution is {shown(distribution)}",
            "only those that keep the bounds and the shift exact are offered for WAN",
            f"set it to {' or '.join(_DISTRIBUTIONS)}",
        )
    shift = configuration.number("timestep_shift")
    if shift is None or shift <= 0:
        yield ConfigFinding(
            "error",
            "timestep_shift",
            f"the timestep shift is {shown(configuration.value('timestep_shift'))}",
            "it is a number above 0",
            f"set it to {variant.default_shift:g}, which the model's own sampler has; 1 is no shift",
        )
    elif not 1 <= shift <= _LARGEST_SHIFT * variant.default_shift:
        yield ConfigFinding(
            "warning",
            "timestep_shift",
            f"a timestep shift of {shift:g} is unusual",
            "below 1 clips are hardly noised, and with a large one nearly nothing but noise is seen",
            f"the model's own sampler has {variant.default_shift:g}",
        )


def text_encoder(configuration: Configuration) -> Iterator[ConfigFinding]:
    """WAN's text encoder is only read."""
    if configuration.variant is not None and configuration.given("text_encoder.train") is True:
        yield ConfigFinding(
            "warning",
            "text_encoder.train",
            "training of the text encoder is on",
            "WAN's is not trained: OneTrainer passes the switch over, the standalone host stops at it",
            "switch it off",
            Correction("text_encoder.train", False),
        )


def offloaded_encoder(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Layers of the text encoder come and go for one thread alone (`create_data_loader`)."""
    fraction = finite_number(configuration.given("text_encoder.offload_fraction"))
    threads = configuration.whole("dataloader_threads")
    if configuration.variant is None or fraction is None or threads is None:
        return
    if fraction > 0 and threads > 1:
        yield ConfigFinding(
            "error" if configuration.is_for_onetrainer else "warning",
            "dataloader_threads",
            f"layers of the text encoder are offloaded, and dataloader_threads is {threads}",
            "OneTrainer refuses to train with both",
            "set dataloader_threads to 1",
            Correction("dataloader_threads", 1),
        )


def layer_filter(configuration: Configuration) -> Iterator[ConfigFinding]:
    """A filter and the name of its preset go together: OneTrainer's window writes the filter by the name."""
    name, layers = configuration.value("layer_filter_preset"), configuration.given("layer_filter")
    if configuration.variant is None or not isinstance(layers, (str, type(None))):
        return
    if layers and name == "full":
        yield ConfigFinding(
            "warning",
            "layer_filter_preset",
            f"layer_filter is {shown(layers)}, and layer_filter_preset is full",
            "OneTrainer's window goes by the preset, and empties the filter: every layer would be trained",
            'set layer_filter_preset to "custom"',
            Correction("layer_filter_preset", "custom"),
        )
    elif not layers and name not in ("full", "custom", ""):
        yield ConfigFinding(
            "warning",
            "layer_filter",
            f"layer_filter_preset is {shown(name)}, and layer_filter is empty",
            "without OneTrainer's window the filter alone counts: every layer is trained",
            "write the layers of that preset into layer_filter",
        )


def half_precision(configuration: Configuration) -> Iterator[ConfigFinding]:
    """WAN's numbers do not fit into fp16."""
    if configuration.variant is not None and configuration.given("train_dtype") == "FLOAT_16":
        yield ConfigFinding(
            "warning",
            "train_dtype",
            "training computes in FLOAT_16",
            "it ends at 65504, beyond which a loss is no number any more; WAN was trained in BFLOAT_16",
            "set it to BFLOAT_16",
            Correction("train_dtype", "BFLOAT_16"),
        )


def uncached(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Without a cache the encoders stay, and work at every step."""
    if configuration.variant is not None and configuration.given("latent_caching") is False:
        yield ConfigFinding(
            "warning",
            "latent_caching",
            "latent caching is off",
            "each clip and caption is encoded anew at every step, and VAE and text encoder stay on the GPU meanwhile, "
            "which no estimate of memory has in it",
            "switch it on; the cache notices by itself what changed",
        )


def masks(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Masked training wants masks."""
    concepts = [concept for concept in configuration.data.trained if concept.samples]
    if configuration.variant is None or not configuration.is_on("masked_training") or not concepts:
        return
    if not any(concept.has_masks for concept in concepts):
        yield ConfigFinding(
            "warning",
            "masked_training",
            "masked training is on, and there is no mask",
            "without masks it trains whole pictures, and takes more memory and time for it",
            "put masks beside the clips (dance.mp4, dance-masklabel.png), or switch it off",
        )


def stale_cache(configuration: Configuration) -> Iterator[ConfigFinding]:
    """OneTrainer's own cache goes by folders and seeds, and not by frames and sizes."""
    if configuration.settings.validate_pipelines or not configuration.is_on("latent_caching"):
        return
    if configuration.variant is not None and not configuration.is_on("clear_cache_before_training"):
        yield ConfigFinding(
            "warning",
            "clear_cache_before_training",
            "OneTrainer's own pipeline is used, and its cache is kept",
            "it does not notice that frames or resolution changed, and trains on what it made for others",
            "switch clear_cache_before_training on, or validate_pipelines in the plugin's settings",
            Correction("clear_cache_before_training", True),
        )
