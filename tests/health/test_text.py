"""Nothing from a user, a file or a server can forge a log line or leak a key."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.health import mask_secrets, plain
from wan_fixes.health.text import mask_values, remember_secret


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_plain_text_has_no_control_characters_and_is_bounded(text: str) -> None:
    shown = plain(text, limit=100)
    categories = {unicodedata.category(character) for character in shown if character not in "\u200c\u200d"}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert len(shown) <= 100 * len("\\U0010ffff") + 40
    shown.encode("utf-8")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=80))
def test_ordinary_text_passes_unchanged(text: str) -> None:
    if mask_secrets(text) == text:
        assert plain(text) == text


@settings(deadline=None)
@given(st.text(max_size=300))
def test_masking_twice_is_masking_once(text: str) -> None:
    assert mask_secrets(mask_secrets(text)) == mask_secrets(text)


def test_what_is_cut_off_is_counted() -> None:
    assert plain("x" * 1500) == "x" * 1000 + "… (500 more characters)"


SECRET = "Zx9Q7w3E5r1T8y2U"


@pytest.mark.parametrize(
    "template",
    [
        "token hf_{0} given",
        "AKIA{1} is the key",
        "Authorization: Bearer {0}",
        "authorization: basic {0}==",
        "https://b.s3.amazonaws.com/k?X-Amz-Signature={0}&X-Amz-Date=20260101",
        "https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Credential={0}",
        "https://cdn/x?Expires=1&Signature={0}&Key-Pair-Id=K",
        "https://acct.blob.core.windows.net/c/b?sv=1&sig={0}",
        "aws_secret_access_key = {0}",
        '{{"secret_access_key": "{0}", "region": "eu"}}',
        "HF_TOKEN={0} wan train",
        "WANDB_API_KEY={0}",
        "password: {0}",
        "https://me:{0}@host/path",
    ],
)
def test_secrets_do_not_survive(template: str) -> None:
    text = template.format(SECRET, SECRET.upper())
    shown = mask_secrets(text)
    assert SECRET not in shown
    assert SECRET.upper() not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "C:/clips/token of love.mp4",
        "max_tokens=512, tokenizer: /models/umt5",
        "https://host/file.mp4?width=832&height=480",
        "half_precision",
        "the signature of the file is wrong",
    ],
)
def test_what_is_no_secret_is_left(text: str) -> None:
    assert mask_secrets(text) == text


def test_values_are_masked_by_name_and_by_content_at_any_depth() -> None:
    config = {
        "secrets": {"huggingface_token": SECRET, "empty_token": ""},
        "clouds": [{"api_key": SECRET}, f"Bearer {SECRET}"],
        "tokenizer": "umt5",
        "max_token_length": "512",
        "steps": 20,
    }
    assert mask_values(config) == {
        "secrets": {"huggingface_token": "***", "empty_token": ""},
        "clouds": [{"api_key": "***"}, "Bearer ***"],
        "tokenizer": "umt5",
        "max_token_length": "512",
        "steps": 20,
    }


def test_m14_a_secret_in_hand_is_masked_wherever_it_turns_up() -> None:
    remember_secret('odd+value/of "mine"')
    for text in ('x odd+value/of "mine" y', "?k=odd%2Bvalue%2Fof%20%22mine%22&z=1", r'{"a": "odd+value/of \"mine\""}'):
        shown = mask_secrets(text)
        assert "***" in shown and "odd" not in shown
    assert plain('odd+value/of "mine"') == "***"
    assert mask_values({"note": ['odd+value/of "mine"']}) == {"note": ["***"]}


def test_m14_a_secret_that_begins_with_another_is_masked_whole() -> None:
    remember_secret("first-part-of-it")
    remember_secret("first-part-of-it-and-the-rest")
    assert mask_secrets("a first-part-of-it-and-the-rest b first-part-of-it c") == "a *** b *** c"


def test_m14_a_short_secret_leaves_the_words_alone_that_it_is_part_of() -> None:
    remember_secret("qzv")
    assert mask_secrets("key=qzv, qzv; aqzvb") == "key=***, ***; aqzvb"


def test_m14_what_is_no_secret_hides_nothing() -> None:
    remember_secret("")
    remember_secret("***")
    assert mask_secrets("a *** b") == "a *** b"
