"""Prompts: cleaned, tokenised and padded as diffusers' pipeline does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from wan_fixes.wan.text import clean_prompt, encode_prompts, trim_embeddings

PROMPTS = ["a red ball rolls over a table", "", "  tabs\tand\n\nlines  ", "caf&amp;eacute; &lt;b&gt;", "ball " * 700]

pieces = st.sampled_from(
    [" ", "\t", "\n", "\x1c", "\x85", "\xa0", "\u2003", "\u200b", "\u3000", "&amp;", "&amp;amp;lt;", "&#28;", "&nbsp;"]
)


@given(st.lists(st.one_of(pieces, st.text(max_size=6))).map("".join))
@example("â€œquotedâ€\x9d")
@example("ﬁne ﬂow")
@example("<i> &amp;lt;")  # ftfy leaves entities alone where there are tags
def test_a_cleaned_prompt_is_what_the_pipeline_makes_of_it(text):
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    assert clean_prompt(text) == prompt_clean(text)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_embeddings_are_those_of_the_pipeline(tiny_pipeline, prompt):
    with torch.no_grad():
        theirs, _ = tiny_pipeline.encode_prompt(prompt, do_classifier_free_guidance=False, max_sequence_length=512)
        ours = encode_prompts(tiny_pipeline.tokenizer, tiny_pipeline.text_encoder, [prompt])
    assert torch.equal(ours, theirs)


def test_a_batch_is_encoded_as_each_prompt_alone(tiny_pipeline):
    with torch.no_grad():
        together = encode_prompts(tiny_pipeline.tokenizer, tiny_pipeline.text_encoder, PROMPTS)
        for prompt, embedding in zip(PROMPTS, together, strict=True):
            alone = encode_prompts(tiny_pipeline.tokenizer, tiny_pipeline.text_encoder, [prompt])[0]
            torch.testing.assert_close(embedding, alone, atol=1e-5, rtol=1e-4)


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4), length=st.integers(1, 9))
def test_real_tokens_are_kept_and_all_others_are_zero_even_where_padding_overflowed(lengths, length):
    mask = torch.tensor([[1] * real + [0] * (6 - real) for real in lengths])
    hidden = torch.randn(len(lengths), 6, 3)
    hidden[mask == 0] = float("inf")
    trimmed = trim_embeddings(hidden, mask, length)
    assert trimmed.shape == (len(lengths), length, 3)
    for row, real in enumerate(lengths):
        kept = min(real, length)
        assert torch.equal(trimmed[row, :kept], hidden[row, :kept])
        assert (trimmed[row, kept:] == 0).all()


def test_a_mask_of_another_batch_is_refused():
    with pytest.raises(ValueError, match="mask"):
        trim_embeddings(torch.zeros(2, 4, 3), torch.ones(1, 4))
