"""OneTrainer's configuration fields: names, defaults, and what each means to the standalone trainer.

Facts read off `TrainConfig`, `ConceptConfig` and `SampleConfig` (configuration version 11); a host test compares
names and defaults with a real checkout. A field is one of

- used: read by `preset.py` or `concepts.py`;
- irrelevant: it changes nothing about a WAN LoRA trained here, so it is passed over in silence;
- ignored: it would change something (speed, files, reports), so a value other than the default is reported;
- refused: ignoring it would train something else than was asked, so a value other than the default stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

NEWEST_VERSION = 11
"""The configuration version that this table describes."""

OLDEST_VERSION = 4
"""Older presets (before 2024) mean other things by the same names, and none of them is for WAN."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its default, what becomes of it, and (ignored, refused) why and what to do instead."""

    default: Any
    treatment: Literal["used", "irrelevant", "ignored", "refused"]
    why: str = ""
    fix: str = ""


def _used(**defaults: Any) -> dict[str, Field]:
    return {name: Field(default, "used") for name, default in defaults.items()}


def _irrelevant(**defaults: Any) -> dict[str, Field]:
    return {name: Field(default, "irrelevant") for name, default in defaults.items()}


def _ignored(why: str, **defaults: Any) -> dict[str, Field]:
    return {name: Field(default, "ignored", why) for name, default in defaults.items()}


def _refused(why: str, fix: str = "", **defaults: Any) -> dict[str, Field]:
    return {name: Field(default, "refused", why, fix) for name, default in defaults.items()}


def _sections(*names: str) -> dict[str, Field]:
    """Objects that hold further fields, none of which matters here."""
    return {name: Field({}, "irrelevant") for name in names}


TRAIN: dict[str, Field] = {
    **_used(
        training_method="FINE_TUNE",
        model_type="STABLE_DIFFUSION_15",
        workspace_dir="workspace/run",
        cache_dir="workspace-cache/run",
        base_model_name="stable-diffusion-v1-5/stable-diffusion-v1-5",
        output_dtype="FLOAT_32",
        output_model_format="SAFETENSORS",
        output_model_destination="models/model.safetensors",
        concept_file_name="training_concepts/concepts.json",
        concepts=None,
        aspect_ratio_bucketing=True,
        latent_caching=True,
        clear_cache_before_training=True,
        continue_last_backup=False,
        learning_rate_scheduler="CONSTANT",
        learning_rate=3e-6,
        learning_rate_warmup_steps=200.0,
        learning_rate_min_factor=0.0,
        epochs=100,
        batch_size=1,
        gradient_accumulation_steps=1,
        dataloader_threads=2,
        train_device="cuda",
        train_dtype="FLOAT_16",
        resolution="512",
        frames="25",
        dropout_probability=0.0,
        clip_grad_norm=1.0,
        min_noising_strength=0.0,
        max_noising_strength=1.0,
        timestep_distribution="UNIFORM",
        noising_weight=0.0,
        noising_bias=0.0,
        timestep_shift=1.0,
        layer_filter="",
        layer_filter_regex=False,
        lora_rank=16,
        lora_alpha=1.0,
        lora_weight_dtype="FLOAT_32",
        sample_definition_file_name="training_samples/samples.json",
        samples=None,
        backup_after=30,
        backup_after_unit="MINUTE",
        save_every=0,
        save_every_unit="NEVER",
        save_filename_prefix="",
    ),
    **_sections(
        # read as sections of their own
        *("transformer", "text_encoder", "vae", "optimizer", "cloud"),
        # parts that WAN does not have
        *("unet", "prior", "unconditional_transformer", "text_encoder_2", "text_encoder_3", "text_encoder_4"),
        *("effnet_encoder", "decoder", "decoder_text_encoder", "decoder_vqgan"),
        # matter only with a quantised weight type, with training_method EMBEDDING, or to OneTrainer's own window
        *("quantization", "embedding", "optimizer_defaults", "secrets"),
    ),
    **_irrelevant(
        debug_dir="debug",
        huggingface_cache_dir="",
        offline_mode=False,
        tensorboard=True,
        tensorboard_expose=False,
        tensorboard_always_on=False,
        tensorboard_port=6006,
        validate_after=1,
        validate_after_unit="EPOCH",
        device_indexes="",
        gradient_reduce_precision="FLOAT_32_STOCHASTIC",
        fused_gradient_reduce=True,
        async_gradient_reduce=True,
        async_gradient_reduce_buffer=100,
        async_offloading=True,
        custom_learning_rate_scheduler=None,
        scheduler_params=[],
        learning_rate_cycles=1.0,
        ema_decay=0.999,
        ema_update_step_interval=5,
        temp_device="cpu",
        fallback_train_dtype="BFLOAT_16",
        enable_autocast_cache=True,
        huber_delta=1.0,
        vb_loss_strength=1.0,
        loss_weight_strength=5.0,
        generalized_offset_noise=False,
        text_encoder_2_layer_skip=0,
        text_encoder_2_sequence_length=77,
        text_encoder_3_layer_skip=0,
        text_encoder_4_layer_skip=0,
        unmasked_probability=0.1,
        unmasked_weight=0.1,
        normalize_masked_area_loss=False,
        layer_filter_preset="full",
        embedding_learning_rate=None,
        preserve_embedding_norm=False,
        embedding_weight_dtype="FLOAT_32",
        bundle_additional_embeddings=True,
        lora_decompose_norm_epsilon=True,
        lora_decompose_output_axis=False,
        oft_block_size=32,
        oft_block_share=False,
        oft_scaled=False,
        lokr_dim=16,
        lokr_decompose_both=False,
        lokr_decompose_factor=-1,
        lokr_use_tucker=False,
        lokr_weight_decompose=False,
        lokr_dora_on_output=True,
        lokr_full_matrix=False,
        lokr_vec_trick=True,
        sample_image_format="JPG",
        sample_audio_format="MP3",
        samples_to_tensorboard=True,
        non_ema_sampling=True,
        backup_before_save=True,
    ),
    **_ignored("the run database takes the place of debug files", debug_mode=False),
    **_ignored("validation is not run; training itself does not change", validation=False),
    **_ignored("the output file is replaced", prevent_overwrites=False),
    **_ignored("the LoRA's metadata names the settings that matter", include_train_config="NONE"),
    **_ignored("it would change speed alone", compile=False, attention_mechanism="SDP"),
    **_ignored("a sample is made once, at the end of the run", sample_after=10, sample_after_unit="MINUTE"),
    **_ignored("a sample is made once, at the end of the run", sample_skip_first=0),
    **_ignored("samples are written as mp4", sample_video_format="MP4"),
    **_ignored("the last two checkpoints are kept, always", rolling_backup=False, rolling_backup_count=3),
    **_ignored("save_every counts from the first step", save_skip_first=0),
    **_refused("training on several devices multiplies the batch", "set it to false", multi_gpu=False),
    **_refused("the standalone trainer does not change padding", "set it to false", force_circular_padding=False),
    **_refused("averaged weights are not kept here", "set it to OFF", ema="OFF"),
    **_refused("a run here always trains", "set it to false", only_cache=False),
    **_refused("the loss of flow matching is the mean squared error", "leave it at 1", mse_strength=1.0),
    **_refused(
        "the loss of flow matching is the mean squared error",
        "set it to 0",
        mae_strength=0.0,
        log_cosh_strength=0.0,
        huber_strength=0.0,
    ),
    **_refused("every timestep weighs the same here", "set it to CONSTANT", loss_weight_fn="CONSTANT"),
    **_refused("loss and learning rate are not scaled here", "set it to NONE", loss_scaler="NONE"),
    **_refused("loss and learning rate are not scaled here", "set it to NONE", learning_rate_scaler="NONE"),
    **_refused(
        "WAN is trained with plain noise", "set it to 0", offset_noise_weight=0.0, perturbation_noise_weight=0.0
    ),
    **_refused(
        "it is for diffusion models, and WAN is a flow matching model",
        "set it to false",
        rescale_noise_scheduler_to_zero_terminal_snr=False,
        force_v_prediction=False,
        force_epsilon_prediction=False,
    ),
    **_refused("WAN's shift is fixed: timestep_shift", "set it to false", dynamic_timestep_shifting=False),
    **_refused("masks are not trained here", "set it to false", masked_training=False),
    **_refused("prior preservation is not done here", "set it to 0", masked_prior_preservation_weight=0.0),
    **_refused("conditioning images are not trained here", "set it to false", custom_conditioning_image=False),
    **_refused("embeddings are not trained here", "remove them", additional_embeddings=[]),
    **_refused("WAN reads the encoder's last layer", "set it to 0", text_encoder_layer_skip=0),
    **_refused("WAN was trained with 512 text tokens", "set it to 512", text_encoder_sequence_length=512),
    **_refused("only LoRA adapters are trained here", "set it to LORA", peft_type="LORA"),
    **_refused("DoRA is not trained here", "set it to false", lora_decompose=False),
    **_refused("a run starts from a fresh LoRA", "leave it empty", lora_model_name=""),
}

_PART: dict[str, Field] = {
    **_used(train=True, weight_dtype="FLOAT_32"),
    **_irrelevant(
        train_embedding=True,
        learning_rate=None,
        dropout_probability=0.0,
        gradient_checkpointing=True,
        stop_training_after=None,
        stop_training_after_unit="NEVER",
        guidance_scale=1.0,
        attention_mask=False,
    ),
    **_refused("the model cannot do without this part", "set it to true", include=True),
    **_refused("every part comes from base_model_name", "leave it empty", model_name=""),
    **_ignored("every part stays on the training device while it is used", offload_fraction=0.0),
    **_ignored("every part stays on the training device while it is used", activation_offloading=False),
}

TRANSFORMER: dict[str, Field] = {
    **_PART,
    **_used(learning_rate=None, gradient_checkpointing=True),
    **_refused("the transformer is trained to the end", "set it to NEVER", stop_training_after_unit="NEVER"),
    **_refused("WAN was not distilled for guidance", "set it to 1", guidance_scale=1.0),
    **_refused("WAN's transformer reads the padded text without a mask", "set it to false", attention_mask=False),
}

TEXT_ENCODER: dict[str, Field] = {**_PART, **_used(dropout_probability=0.0)}

VAE: dict[str, Field] = {**_PART, **_irrelevant(train=True)}

CLOUD: dict[str, Field] = _used(enabled=False)

OPTIMIZER: dict[str, Field] = {
    **_used(
        optimizer="ADAMW",
        beta1=None,
        beta2=None,
        eps=None,
        weight_decay=None,
        amsgrad=False,
        momentum=None,
        dampening=None,
        nesterov=False,
    ),
    **_refused("the loss is made smaller here, never larger", "set it to false", maximize=False),
    **_ignored("it would change memory alone", fused_back_pass=False),
    **_irrelevant(
        # speed alone
        foreach=False,
        fused=False,
        capturable=False,
        differentiable=False,
        fsdp_in_use=False,
        compile=False,
        # rounding of bf16 parameters; adapters are kept in fp32 unless lora_weight_dtype says otherwise
        stochastic_rounding=True,
        # of optimizers that are refused here
        adam_w_mode=False,
        alpha=None,
        beta3=None,
        bias_correction=False,
        block_wise=False,
        centered=False,
        clip_threshold=None,
        d0=None,
        d_coef=None,
        decay_rate=None,
        decouple=False,
        eps2=None,
        growth_rate=None,
        initial_accumulator_value=None,
        initial_accumulator=None,
        is_paged=False,
        log_every=None,
        lr_decay=None,
        max_unorm=None,
        min_8bit_size=None,
        quant_block_size=None,
        no_prox=False,
        optim_bits=None,
        percentile_clipping=None,
        r=None,
        relative_step=False,
        safeguard_warmup=False,
        scale_parameter=False,
        use_bias_correction=False,
        use_triton=False,
        warmup_init=False,
        weight_lr_power=None,
        decoupled_decay=False,
        fixed_decay=False,
        rectify=False,
        degenerated_to_sgd=False,
        k=None,
        xi=None,
        n_sma_threshold=None,
        ams_bound=False,
        adanorm=False,
        adam_debias=False,
        slice_p=None,
        cautious=False,
        weight_decay_by_lr=True,
        prodigy_steps=None,
        use_speed=False,
        split_groups=True,
        split_groups_mean=True,
        factored=True,
        factored_fp32=True,
        use_stableadamw=True,
        use_cautious=False,
        use_grams=False,
        use_adopt=False,
        d_limiter=True,
        use_schedulefree=True,
        use_orthograd=False,
        nnmf_factor=False,
        orthogonal_gradient=False,
        use_atan2=False,
        use_AdEMAMix=False,
        beta3_ema=None,
        alpha_grad=None,
        beta1_warmup=None,
        min_beta1=None,
        Simplified_AdEMAMix=False,
        kourkoutas_beta=False,
        schedulefree_c=None,
        ns_steps=None,
        MuonWithAuxAdam=False,
        muon_hidden_layers=None,
        muon_adam_regex=False,
        muon_adam_lr=None,
        muon_te1_adam_lr=None,
        muon_te2_adam_lr=None,
        muon_adam_config={},
        rms_rescaling=True,
        normuon_variant=False,
        beta2_normuon=None,
        low_rank_ortho=False,
        ortho_rank=None,
        accelerated_ns=False,
        cautious_wd=False,
        approx_mars=False,
        auto_kappa_p=False,
    ),
}

CONCEPT: dict[str, Field] = {
    **_used(
        name="",
        path="",
        seed=None,
        enabled=True,
        type="STANDARD",
        include_subdirectories=False,
        image_variations=1,
        text_variations=1,
        balancing=1.0,
        balancing_strategy="REPEATS",
        loss_weight=1.0,
    ),
    **_sections("image", "text", "concept_stats"),
}

_NO_AUGMENTATION = "clips are flipped and cropped here, not augmented otherwise"

CONCEPT_IMAGE: dict[str, Field] = {
    **_used(
        enable_crop_jitter=True,
        enable_random_flip=False,
        enable_fixed_flip=False,
        enable_resolution_override=False,
        resolution_override="512",
    ),
    **_ignored(
        _NO_AUGMENTATION,
        enable_random_rotate=False,
        enable_fixed_rotate=False,
        enable_random_brightness=False,
        enable_fixed_brightness=False,
        enable_random_contrast=False,
        enable_fixed_contrast=False,
        enable_random_saturation=False,
        enable_fixed_saturation=False,
        enable_random_hue=False,
        enable_fixed_hue=False,
    ),
    **_irrelevant(
        random_rotate_max_angle=0.0,
        random_brightness_max_strength=0.0,
        random_contrast_max_strength=0.0,
        random_saturation_max_strength=0.0,
        random_hue_max_strength=0.0,
        enable_random_circular_mask_shrink=False,
        enable_random_mask_rotate_crop=False,
    ),
}

CONCEPT_TEXT: dict[str, Field] = {
    **_used(
        prompt_source="sample",
        prompt_path="",
        enable_tag_shuffling=False,
        tag_delimiter=",",
        keep_tags_count=1,
    ),
    **_ignored("tags are shuffled here, not dropped", tag_dropout_enable=False),
    **_ignored("captions keep their capitals here", caps_randomize_enable=False),
    **_irrelevant(
        tag_dropout_mode="FULL",
        tag_dropout_probability=0.0,
        tag_dropout_special_tags_mode="NONE",
        tag_dropout_special_tags="",
        tag_dropout_special_tags_regex=False,
        caps_randomize_mode="capslock, title, first, random",
        caps_randomize_probability=0.0,
        caps_randomize_lowercase=False,
    ),
}

SAMPLE: dict[str, Field] = {
    **_used(
        enabled=True,
        prompt="",
        negative_prompt="",
        height=512,
        width=512,
        frames=1,
        seed=42,
        diffusion_steps=30,
        cfg_scale=7.0,
    ),
    **_ignored("samples use WAN's own scheduler", noise_scheduler="DDIM"),
    **_ignored("a sample here has a fixed seed", random_seed=False),
    **_irrelevant(
        length=10.0,
        text_encoder_1_layer_skip=0,
        text_encoder_1_sequence_length=None,
        text_encoder_2_layer_skip=0,
        text_encoder_2_sequence_length=None,
        text_encoder_3_layer_skip=0,
        text_encoder_4_layer_skip=0,
        transformer_attention_mask=False,
        force_last_timestep=False,
        sample_inpainting=False,
        base_image_path="",
        mask_image_path="",
    ),
}
