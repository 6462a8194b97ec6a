"""What looks like a secret is not written down: by the name it goes under, and by the shape of the value. Pure.

A net, not a proof: a secret under a harmless name and without a known shape passes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate

MARK = "<redacted>"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# as a part of any word of the name: DBPASSWORD, clientsecret
_ANYWHERE = _set(
    "PASSWORD PASSWD PASSPHRASE SECRET CREDENTIAL APIKEY ACCESSKEY PRIVATEKEY SECRETKEY ACCESSTOKEN AUTHTOKEN WEBHOOK "
    "CONNECTIONSTRING"
)
_WORDS = _set("AUTH OAUTH AUTHORIZATION COOKIE COOKIES PRIVATE JWT BEARER DSN PASS PW PASSCODE OTP")
_LAST = _set("KEY KEYS SESSION SESSIONID SESSID TOKEN PAT SAS SIG SIGNATURE")
# KEY and TOKEN after these, wherever they stand: API_KEY_OLD
_OF = _set("API ACCESS SECRET AUTH REFRESH SIGNING ENCRYPTION MASTER SSH SSL TLS DEPLOY BOT APP CLIENT SESSION")
# KEY and TOKEN after these are of a vocabulary, a table or a sort
_PLAIN_BEFORE = _set(
    "PAD EOS BOS UNK CLS SEP MASK IMAGE TEXT LABEL SORT PRIMARY FOREIGN INPUT OUTPUT TARGET FEATURE COLUMN DATA "
    "DATASET GROUP MONITOR METRIC CACHE PARTITION SAMPLE CAPTION PROMPT START END SPECIAL STOP PER DESKTOP AUDIO VIDEO"
)
_PLAIN_NAMES = {"DESKTOP_SESSION", "GDMSESSION", "SSH_AUTH_SOCK", "PWD", "OLDPWD"}
_PLAIN_VALUES = {"", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null", "auto"}

# (a hint that the text must hold for the search to be worth it; the shape; N, the shortest tail in a page of source)
_SHAPES = (
    ("://", r"(?<=://)[^\s/@:'\"]*:[^\s/@'\"]+(?=@)", 0),  # https://user:password@host
    ("://", r"(?<=://)[A-Za-z0-9_\-]{16,}(?=@)", 0),  # https://token@host
    ("hooks.slack.com/", r"(?<=hooks\.slack\.com/)[\w/]{8,}", 0),
    ("/api/webhooks/", r"(?<=/api/webhooks/)[\w\-/]{8,}", 0),
    ("=", r"(?i)(?<=[?&])(?:[\w\-]*(?:token|key|secret|password|signature)|sig|auth)=[\w%+/.\-=]{8,}", 0),
    ("bearer", r"(?i)\bbearer\s+(?=[\w\-.+/]*\d)[\w\-.+/=]{12,}", 0),
    ("basic", r"(?i)\bauthorization['\"]?\s*[:=]\s*['\"]?basic\s+[\w+/=\-]{8,}", 0),
    ("private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", 0),
    ("eyj", r"(?<![\w\-])eyJ[\w\-]{5,}\.[\w\-]{5,}\.[\w\-]*", 0),  # JSON web token
    ("akia", r"(?<![A-Za-z0-9])AKIA[A-Z0-9]{N,}", 12),
    ("asia", r"(?<![A-Za-z0-9])ASIA[A-Z0-9]{N,}", 12),
    ("_", r"(?<![A-Za-z0-9_])(?:hf|gh[pousr]|npm|r8|[spr]k_live|[spr]k_test)_[A-Za-z0-9]{N,}", 16),
    ("", r"(?<![A-Za-z0-9_])(?:github_pat_|glpat-|pypi-Ag|dop_v1_|nvapi-|AIza|ya29\.)[\w\-]{N,}", 16),
    ("sk-", r"(?<![A-Za-z0-9_\-])sk-(?=[\w\-]*\d)[\w\-]{N,}", 16),
    ("xox", r"(?<![A-Za-z0-9])xox[a-z]-[\w\-]{N,}", 8),
)
_IN_TEXT = tuple((hint, re.compile(shape.replace("{N,}", f"{{{size},}}"))) for hint, shape, size in _SHAPES)
# A value that is one word may have a shorter tail, with a digit in it.
_LOOSE = tuple((hint, re.compile(shape.replace("{N,}", "{6,}"))) for hint, shape, size in _SHAPES if size)


_SETTINGS = _set(".toml .yaml .yml .json .ini .cfg .txt .sh .csv .xml")
SECRET_FILES = tuple(
    sorted(
        _set(
            ".env .env.* *.env *.pem *.key *.p12 *.pfx *.kdbx *.jks *.ppk *.asc *.gpg id_rsa* id_dsa* id_ecdsa* "
            "id_ed25519* netrc .netrc _netrc .pypirc .npmrc .pgpass .htpasswd .git-credentials kaggle.json credentials "
            "secret secrets service-account*.json service_account*.json *credentials*.json"
        )
        | {f"{name}{suffix}" for name in ("credentials", "secret", "secrets") for suffix in _SETTINGS}
    )
)
"""Patterns of names of files that are made to hold secrets; in any case, upper or lower."""


_SECRET_FILE = re.compile("|".join(map(translate, SECRET_FILES)))


def secret_file(name: str) -> bool:
    """Whether a file of this name (without folder) is made to hold secrets."""
    return _SECRET_FILE.match(name.lower()) is not None


@functools.cache
def secret_name(name: str) -> bool:
    """Whether what goes under this name (a variable, an option, a key of a file) is taken for a secret."""
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    words = [word.rstrip("0123456789") or word for word in re.split(r"[^A-Za-z0-9]+", split.upper()) if word]
    while words and words[-1].isdigit():
        words.pop()
    whole = "_".join(words)
    if not words or whole in _PLAIN_NAMES:
        return False
    joined = "".join(words)
    if any(part in joined for part in _ANYWHERE) or _WORDS & set(words):
        return True
    if words[-1] == "PWD" or (words[-1].endswith("TOKEN") and words[-1] != "TOKEN"):  # MYSQL_PWD, HFTOKEN
        return True
    before = dict(zip(words[1:], words, strict=False))
    if words[-1] in _LAST:
        return before.get(words[-1]) not in _PLAIN_BEFORE
    return any(word in ("KEY", "TOKEN", "TOKENS") and before.get(word) in _OF for word in words)


def hide_value(name: str, value: str) -> str:
    """The value of a variable or an option: as it is, the mark, or with the mark for what is secret in it."""
    if value.lower() in _PLAIN_VALUES:
        return value
    if secret_name(name):
        return MARK
    return hide_shapes(value, whole=True)


def hide_shapes(text: str, whole: bool = False) -> str:
    """The text with the mark for each known shape of a secret. `whole`: it is one value, not a page of source."""
    lowered = text.lower()
    for hint, shape in _IN_TEXT:
        if hint in lowered:
            text = shape.sub(MARK, text)
    for hint, shape in _LOOSE if whole else ():
        if hint in lowered:
            text = shape.sub(lambda match: MARK if re.search(r"\d", match[0][4:]) else match[0], text)
    return text


def hide_words(words: Iterable[str]) -> tuple[str, ...]:
    """Words of a command line: `--token X`, `--token=X`, `wandb.api_key=X`, and shapes anywhere."""
    hidden: list[str] = []
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        if option and not word.startswith("--"):
            hidden.append(hide_value(option, word))
            option = ""
        elif equals and re.fullmatch(r"[-+~]*[A-Za-z_][\w.\-/@:]*", name):
            hidden.append(f"{name}={hide_value(name, value)}")
            option = ""
        else:
            hidden.append(hide_assignments(hide_shapes(word, whole=True), ".json"))
            option = word if word.startswith("-") and secret_name(word) else ""
    return tuple(hidden)


def hide_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables, each as `hide_value` has it."""
    return {name: hide_value(name, value) for name, value in environ.items()}


def secret_values(*pairs: tuple[str, str]) -> tuple[str, ...]:
    """The values that stand under a secret's name and are long and odd enough to be looked for in other texts."""
    values = {value for name, value in pairs if secret_name(name) and len(value) >= 8 and value.count("/") < 2}
    odd = {value for value in values if not (value.isalpha() and value.islower() and len(value) < 12)}
    return tuple(sorted(odd, key=len, reverse=True))


def known_secrets(args: Sequence[str], env: Iterable[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets that stand in the environment or on the command line (`env`: K=V), by their values."""
    pairs = [*environ.items(), *((name, value) for name, _, value in (pair.partition("=") for pair in env))]
    for word, hidden in zip(args, hide_words(args), strict=True):
        name, _, value = word.partition("=")
        if hidden == MARK:
            pairs.append(("SECRET", word))
        elif hidden == f"{name}={MARK}":
            pairs.append(("SECRET", value))
    return secret_values(*pairs)


def hide_known(text: str, values: Iterable[str]) -> str:
    """The text with the mark in place of each of the values."""
    for value in values:
        text = text.replace(value, MARK)
    return text


# Both begin at a word's start, so that a line of a million letters is read once.
_QUOTED = re.compile(r"""(?<![\w.\-])(["']?)([A-Za-z_][\w.\-]*)\1(\s*(?:=>|:=|[:=])\s*)(["'])([^"'\n]+)\4""")
_BARE = re.compile(
    r"""(?m)^([+\- ]?[ \t]*(?:- |export )?["']?)([A-Za-z_][\w.\-]*)(["']?[ \t]*[:=][ \t]*)([^\s"'#]+)[ \t]*$"""
)
_TOO_COMMON = {"KEY", "KEYS", "TOKEN", "SESSION", "AUTH", "PASS", "SIGNATURE", "PRIVATE", "SIG", "PAT", "OTP"}
_CODE = (".py", ".pyi", ".c", ".cc", ".cpp", ".cu", ".h", ".rs", ".go", ".js", ".ts", ".md")


def hide_assignments(text: str, suffix: str) -> str:
    """A source or settings file with the mark in place of a literal that is assigned to a secret's name.

    Only literals that look made by a machine, or passwords: `eos_token = "</s>"` and `key = "labels"` stay.
    """
    code = suffix in _CODE

    def secret(name: str, value: str) -> bool:
        if not secret_name(name) or (code and name.upper() in _TOO_COMMON):
            return False
        if re.search(r"[\s<>${}()]", value) or value.lower() in _PLAIN_VALUES:
            return False
        if re.search(r"(?i)passw|passphrase", name):
            return len(value) >= 6
        return len(value) >= 8 and any(map(str.isdigit, value))

    text = _QUOTED.sub(lambda m: f"{m[1]}{m[2]}{m[1]}{m[3]}{m[4]}{MARK}{m[4]}" if secret(m[2], m[5]) else m[0], text)
    if code:
        return text
    return _BARE.sub(lambda m: f"{m[1]}{m[2]}{m[3]}{MARK}" if secret(m[2], m[4]) else m[0], text)


def hide_source(text: str, suffix: str, known: Iterable[str]) -> str:
    """A text file as it may be written down."""
    return hide_assignments(hide_shapes(hide_known(text, known)), suffix)


def hide_diff(diff: str, known: Iterable[str]) -> str:
    """A git diff as it may be written down: each file by its suffix. Only a private key takes its lines along."""
    parts = re.split(r"(?m)^(?=diff --git )", diff)
    known = tuple(known)
    return "".join(hide_source(part, _suffix(part.partition("\n")[0]), known) for part in parts)


def _suffix(heading: str) -> str:
    """`diff --git a/x.py b/x.py` -> `.py`"""
    return "." + heading.rstrip('"').rpartition(".")[2] if "." in heading else ""
