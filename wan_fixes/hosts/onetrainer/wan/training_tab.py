"""WAN's training tab: stock's sections where they fit, and its own for the experts, the noise levels and the VAE."""

from __future__ import annotations

from functools import partial
from typing import Any

from modules.util.ui.validation_helpers import check_range

from wan_fixes.hosts.onetrainer.patches.wan_tabs import OFFLOADING, TRAINING_FRAME
from wan_fixes.hosts.onetrainer.wan.predict import DISTRIBUTIONS
from wan_fixes.wan.variants import WanVariant

_NOISE = {
    "offset_noise_weight": ("Offset Noise Weight", "Noise that is the same over a whole picture, added to each step."),
    "perturbation_noise_weight": ("Perturbation Noise Weight", "More noise on what the model sees, not on its target."),
    "min_noising_strength": (
        "Min Noising Strength",
        "The least noise that the model is trained on, after the shift: 0 is a clean clip.",
    ),
    "max_noising_strength": (
        "Max Noising Strength",
        "The most noise that the model is trained on, after the shift: 1 is noise alone.",
    ),
    "noising_weight": ("Noising Weight", "Narrows the logit-normal distribution around its middle."),
    "noising_bias": ("Noising Bias", "Moves the middle of the logit-normal distribution."),
}
_STRENGTH = check_range(lower=0, upper=1, message="A noising strength is between 0 and 1")


def build_training_tab(
    view: Any, variant: WanVariant, columns: tuple[Any, Any, Any], controller: Any, ui_state: Any
) -> None:
    """Lay the sections into the three columns, where stock has them for other video models."""

    def stock(name: str) -> Any:
        return getattr(view, TRAINING_FRAME.format(name))

    left, middle, right = columns
    stock("base")(left, 0, controller, ui_state)
    stock("text_encoder")(left, 1, ui_state, supports_clip_skip=False, supports_training=False)

    stock("base2")(middle, 0, controller, ui_state, video_training_enabled=True)
    if variant.experts == 1:
        stock("transformer")(middle, 1, ui_state, supports_force_attention_mask=False)
    else:
        boundary = variant.boundary_ratio
        _expert(view, middle, 1, ui_state, "transformer", "High-Noise Expert", f"noise above {boundary}")
        _expert(view, middle, 2, ui_state, "transformer_2", "Low-Noise Expert", f"noise up to {boundary}")
    _noise(view, variant, middle, 3, ui_state)

    _vae(view, right, 0, ui_state)
    stock("masked")(right, 1, ui_state)
    stock("loss")(right, 2, controller, ui_state)
    stock("layer")(right, 3, controller, ui_state)


def _expert(view: Any, master: Any, row: int, ui_state: Any, part: str, name: str, noise: str) -> None:
    ui = view.components
    frame = ui.section_frame(master, row)
    label = partial(ui.label, frame)
    label(0, 0, f"Include {name}", tooltip=f"The expert for {noise}. Off: it is neither loaded nor trained.")
    ui.switch(frame, 0, 1, ui_state, f"{part}.include")
    label(1, 0, f"Train {name}", tooltip="Off: it is loaded for samples, and the other expert alone is trained.")
    ui.switch(frame, 1, 1, ui_state, f"{part}.train")
    after = getattr(view, OFFLOADING)(frame, 2, ui_state, part, supports_activation_offloading=True)
    label(after, 0, "Stop Training After", tooltip="When to stop training this expert")
    ui.time_entry(
        frame,
        after,
        1,
        ui_state,
        f"{part}.stop_training_after",
        f"{part}.stop_training_after_unit",
        supports_time_units=False,
    )
    label(after + 1, 0, "Learning Rate", tooltip="Of this expert. Overrides the base learning rate")
    ui.entry(frame, after + 1, 1, ui_state, f"{part}.learning_rate")


def _noise(view: Any, variant: WanVariant, master: Any, row: int, ui_state: Any) -> None:
    ui = view.components
    frame = ui.section_frame(master, row)
    ui.label(
        frame, 0, 0, "Timestep Distribution", tooltip="How the noise levels of training are drawn, before the shift."
    )
    ui.options_adv(
        frame,
        0,
        1,
        list(DISTRIBUTIONS),
        ui_state,
        "timestep_distribution",
        adv_command=view.open_timestep_distribution,
    )
    shift = f"More of the training at high noise. {variant.label} is sampled with {variant.default_shift:g}."
    ui.label(frame, 1, 0, "Timestep Shift", tooltip=shift)
    ui.entry(frame, 1, 1, ui_state, "timestep_shift", required=True)
    for number, (name, (text, tooltip)) in enumerate(_NOISE.items(), 2):
        ui.label(frame, number, 0, text, tooltip=tooltip)
        options = {"extra_validate": _STRENGTH} if name.endswith("_strength") else {}
        ui.entry(frame, number, 1, ui_state, name, required=True, **options)


def _vae(view: Any, master: Any, row: int, ui_state: Any) -> None:
    ui = view.components
    frame = ui.section_frame(master, row)
    ui.label(
        frame,
        0,
        0,
        "VAE Tiling",
        tooltip="The VAE works on one tile of a picture after the other: less memory, and slightly other latents.",
    )
    ui.switch(frame, 0, 1, ui_state, "vae_tiling")
