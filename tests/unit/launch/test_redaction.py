"""What looks like a secret is hidden, and what only sounds like one is not."""

import pytest
from dtk_launch.redaction import (
    MARK,
    hide_assignments,
    hide_diff,
    hide_environment,
    hide_known,
    hide_shapes,
    hide_source,
    hide_value,
    hide_words,
    secret_name,
    secret_values,
)

SECRET_NAMES = [
    "WANDB_API_KEY",
    "OPENAI_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "GITHUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "COMET_API_KEY",
    "NEPTUNE_API_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "DATABASE_PASSWD",
    "PGPASSWORD",
    "MYSQL_PWD",
    "REDIS_AUTH",
    "SENTRY_DSN",
    "SLACK_WEBHOOK_URL",
    "SSH_PRIVATE_KEY",
    "SESSION_COOKIE",
    "JWT",
    "DB_PASS",
    "KEY",
    "TOKEN",
    "SECRET",
    "apiKey",
    "authToken",
    "client-secret",
    "API_KEY_2",
    "OPENAI_API_KEY_OLD",
    "HFTOKEN",
    "KAGGLE_KEY",
    "MY_PASSPHRASE",
    "django.secret_key",
    "AUTHORIZATION",
    "LABEL_STUDIO_API_KEY",
    "XSESSIONID_COOKIE",
    "PHPSESSID_COOKIE",
]
PLAIN_NAMES = [
    "TOKENIZERS_PARALLELISM",
    "TOKENIZER",
    "KEYBOARD",
    "XDG_SESSION_TYPE",
    "XDG_SESSION_ID",
    "DESKTOP_SESSION",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    "XAUTHORITY",
    "GIT_AUTHOR_NAME",
    "AUTHOR",
    "MONKEY",
    "PWD",
    "OLDPWD",
    "PATH",
    "HOME",
    "NCCL_DEBUG",
    "MAX_TOKENS",
    "num_tokens",
    "max-new-tokens",
    "eos_token",
    "pad_token",
    "image-key",
    "sort_key",
    "token_type_ids",
    "key_dim",
    "num_key_value_heads",
    "PASSES",
    "COMPASS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "LS_COLORS",
    "PRIVACY",
    "SESSIONS_DIR",
    "DTK_RUN_DIR",
    "OMP_NUM_THREADS",
    "bypass",
    "PATIENCE",
    "SIGMA",
]
SECRET_VALUES = [
    "postgres://ada:s3cr3t@db/x",
    "https://0123456789abcdef0123@o1.ingest.io/2",
    "hf_AbCdEf123456",
    "ghp_16C7e42F292c6912E7",
    "github_pat_11AAAAAA0abcdefghijkl",
    "sk-proj-abc123def456ghi789",
    "sk-abc123",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-123456-abcdef",
    "glpat-ABC123def456",
    "eyJhbGciOi.eyJzdWIiOi.SflKxwRJ",
    "Bearer abc123def456",
    "nvapi-A1b2C3d4E5",
    "AIzaSyA1B2C3D4E5F6",
    "https://hooks.slack.com/services/T0/B0/XXXXXXXX",
    "https://x.blob/y?sv=1&sig=abcdefgh%3D",
    "-----BEGIN RSA PRIVATE KEY-----\nMII",
]
PLAIN_VALUES = [
    "hf_transfer",
    "sk-learn",
    "git@github.com:ada/x.git",
    "https://host:8080/a@b",
    "ssh://git@host/x",
    "task-12345678",
    "basic training",
    "s3://bucket/run",
    "risk-aware-v2-model-0001-with-long-name",
    "hf_hub_download",
    "a=b",
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_by_its_name(name):
    assert secret_name(name)
    assert hide_value(name, "hunter2") == MARK
    assert hide_value(name, "") == ""


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_a_name_that_only_sounds_like_one(name):
    assert not secret_name(name)
    assert hide_value(name, "hunter2") == "hunter2"


@pytest.mark.parametrize("value", SECRET_VALUES)
def test_a_secret_by_its_shape(value):
    hidden = hide_value("PLAIN", value)
    assert MARK in hidden
    for secret in (
        "s3cr3t",
        "0123456789abcdef",
        "AbCd",
        "16C7",
        "abc123",
        "IOSF",
        "123456",
        "A1b2",
        "A1B2",
        "XXXX",
        "sig=a",
        "MII",
    ):
        assert secret not in hidden


@pytest.mark.parametrize("value", PLAIN_VALUES)
def test_a_value_that_has_no_such_shape(value):
    assert hide_value("PLAIN", value) == value
    assert hide_shapes(f"x = '{value}'") == f"x = '{value}'"


SOURCE = """
pk_field_of_the_table_2 = sk_linear_model_v2_name = hf_model2vec_base_v1 = r8_something_quantized_2
url = f"https://hub/api?page_token={token_2}&key=%s"  # basic tutorial_3_advanced, the bearer of news
hf_hub_download("hf-internal-testing/tiny-random-gpt2"); task-sk-learn-something-2024; AKIAxx; pypi-publish-2024-action
model.to(device)["key_value_states_1"]; KEY = "conv1.weight.00001"; special_tokens = {"eos_token": "<|endoftext_1|>"}
"""


@pytest.mark.parametrize("suffix", [".py", ".cpp"])
def test_source_without_secrets_is_not_touched(suffix):
    assert hide_source(SOURCE, suffix, ()) == SOURCE


@pytest.mark.parametrize(
    "piece", ["a", "a.", "a=", "a='", "sk-", "eyJa.", "://a", "?key", "a b ", "-----BEGIN PRIVATE KEY"]
)
def test_long_lines_are_read_in_a_time_that_grows_with_them(piece):
    for suffix in (".py", ".json"):
        assert hide_source(piece * (250_000 // len(piece)), suffix, ())


@pytest.mark.parametrize(
    ("words", "hidden"),
    [
        ("--api-key X1 data", "--api-key * data"),
        ("--token=X1 --lr 1", "--token=* --lr 1"),
        ("--use-auth-token --lr 1", "--use-auth-token --lr 1"),
        ("--use-auth true", "--use-auth true"),
        ("+wandb.api_key=X1 model.key_dim=3", "+wandb.api_key=* model.key_dim=3"),
        ("--tokenizer gpt2 --max-tokens 512 --image-key jpg", "--tokenizer gpt2 --max-tokens 512 --image-key jpg"),
        ("--password -x", "--password *"),
        ("--db postgres://u:p@h/d", "--db postgres://*@h/d"),
        ('--config {"api_key":"abcd1234","lr":1}', '--config {"api_key":"*","lr":1}'),
    ],
)
def test_words_of_a_command_line(words, hidden):
    assert " ".join(hide_words(words.split())) == hidden.replace("*", MARK)


def test_every_word_that_is_hidden_stays_in_its_place():
    words = ("train.py", "--key", "a b", "--", "--secret", "--", "x")
    assert hide_words(words) == ("train.py", "--key", MARK, "--", "--secret", "--", "x")


def test_an_environment():
    hidden = hide_environment({"HF_TOKEN": "t", "HOME": "/home/ada", "DB": "pg://a:b@c", "USE_AUTH": "1"})
    assert hidden == {"HF_TOKEN": MARK, "HOME": "/home/ada", "DB": f"pg://{MARK}@c", "USE_AUTH": "1"}


def test_a_value_that_is_known_is_found_in_any_text():
    values = secret_values(
        ("API_KEY", "correct horse 7"), ("TOKEN", "short"), ("HOME", "not a secret"), ("KEY", "training")
    )
    assert values == ("correct horse 7",)
    assert hide_known("a correct horse 7 b", values) == f"a {MARK} b"


CODE = """
api_key = "abcd1234efgh"
password = "correct"
eos_token = "</s>"; key = "image_2_embeds"; token = "layer12_out"
secret_key = derive_key_v2
client = Client(auth_token='tok-12345678', max_tokens=512)
"""
SETTINGS = """
token: abcd1234efgh
export WANDB_API_KEY=abcd1234
eos_token: "</s>"
api_key: ${API_KEY_123456}
password = correct
sort_key: column_123456
"""


def test_literals_in_source_and_in_settings():
    code = hide_assignments(CODE, ".py")
    assert code == CODE.replace("abcd1234efgh", MARK).replace("correct", MARK).replace("tok-12345678", MARK)
    settings = hide_assignments(SETTINGS, ".yaml")
    assert settings == SETTINGS.replace("abcd1234efgh", MARK).replace("=abcd1234", f"={MARK}").replace("correct", MARK)


def test_a_diff_keeps_its_lines():
    diff = "diff --git a/x.yaml b/x.yaml\n@@ -1 +1 @@\n-a: 1\n+token: abcd1234efgh\n" + (
        "diff --git a/y.py b/y.py\n@@ -1 +1 @@\n-a = 1\n+token = table2value\n+T = 'hf_AbCdEfGhIjKlMnOp12'\n"
    )
    assert hide_diff(diff, ()) == diff.replace("abcd1234efgh", MARK).replace("hf_AbCdEfGhIjKlMnOp12", MARK)
    assert hide_source("x = 'my-known-1'", ".py", ["my-known-1"]) == f"x = '{MARK}'"
