"""The credentials that redaction knows by their looks: vendor keys, private keys, passwords in URLs, assignments.

A pattern must cost next to nothing on text that holds no credential, so each names its *anchors*: literals without
which it cannot match. A *solid* pattern lies in, or directly after, a stretch of at least `SOLID_LENGTH` characters
without a space; prose has few of those and only they are searched for its anchors. Every regex begins with a literal
(lookbehinds stand after it), because `re` then skips ahead instead of trying each position, and repeats nothing that
could be read in two ways, so that hostile text costs linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

SOLID_LENGTH = 26
"""Every solid credential is this long with its delimiters or encoding: `glpat-` keys are, AWS ids in base64 too."""

_ALNUM = "[A-Za-z0-9]"
_RUN = "[A-Za-z0-9_-]"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One family of credentials; `regex` may name the part to replace `secret`, else its whole match goes.

    `accept` has the last word on a match. It must be a pure function, and a change of it a new `name`: the policy's
    version is made of name, regex and anchors.
    """

    name: str
    regex: str
    anchors: tuple[str, ...]
    solid: bool = False
    accept: Callable[[re.Match[str]], bool] | None = None
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.anchors or not all(self.anchors):
            raise ValueError(f"pattern {self.name!r} has no anchors; give literals of which each match contains one")
        object.__setattr__(self, "compiled", re.compile(self.regex, re.ASCII))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where in `text` this family's secrets stand, left to right."""
        group: int | str = "secret" if "secret" in self.compiled.groupindex else 0
        for match in self.compiled.finditer(text):
            if self.accept is None or self.accept(match):
                yield match.span(group)


class Assignment(Pattern):
    """A name such as `password`, then `=` or `:`, then a value that looks made by a machine; only the value goes.

    The regex finds the sign and what may stand before it; the name is read backwards from there, the value forwards.
    """

    __slots__ = ()

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        done = 0
        for sign in self.compiled.finditer(text):
            if sign.start() < done or not names_a_secret(text[max(0, sign.start() - 48) : sign.start()]):
                continue
            if (span := _value_span(text, sign.end())) is not None:
                done = span[1]
                yield span


_NAMES = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "accesskey", "secretkey", "privatekey",
    "authkey", "accountkey", "sharedkey", "signingkey", "encryptionkey", "masterkey", "authorization",
)  # fmt: skip
_ENDINGS = frozenset(name[-3:] for name in _NAMES)
_CURSORS = ("pagetoken", "nexttoken", "continuationtoken", "synctoken")
# The last three letters of _NAMES, letter by letter, with a quote or space between name and sign; or any two of those.
_END = "[aAiIkKoOpPrRsS][eEoOrRsSwW][dDeEnNtTyY]"
_LOOSE = r"[\s\"'\]\\]"


def _sign(sign: str) -> str:
    before = f"(?:(?<={_END}{sign})|(?<={_END}[\\s\"']{sign})|(?<={_LOOSE}{_LOOSE}{sign}))"
    return f"{sign}{before}[=>]{{0,2}}[ \\t]{{0,16}}(?:str[ \\t]{{0,4}}=[ \\t]{{0,4}})?"


def names_a_secret(before: str) -> bool:
    """Whether a name says that what stands under it is secret: `before` is the name, or a text that ends with it."""
    name = before.rstrip(" \t\"'\\]").lower()
    if name[-3:] not in _ENDINGS:
        return False
    name = name.replace("_", "").replace("-", "")
    return name.endswith(_NAMES) and not name.endswith(_CURSORS)


def named_span(name: str, value: str) -> tuple[int, int] | None:
    """The part of a whole value that is secret because of the name it stands under: a mapping's key, a header."""
    if not names_a_secret(name):
        return None
    scheme = _OPENING.match(value)
    start = scheme.end() if scheme is not None and scheme["quote"] is None else 0
    secret = value[start:].rstrip()
    spaced = any(map(str.isspace, secret))
    return None if spaced or not looks_random(secret, quoted=True) else (start, start + len(secret))


_OPENING = re.compile(r"(?:[bBfFrRuU]{1,2}(?=[\"']))?(?P<quote>\\{0,7}[\"'])?(?:(?i:bearer|basic|token|apikey)[ \t]+)?")
_BARE = r"[^\s\"'\\,;&<>(){}\[\]|`"
# Bounded, so that a text of nothing but names and signs stays linear; an accepted value is followed to its end.
_VALUES = {
    '"': re.compile(r'[^\s"\\]{0,1024}(?:\\.[^\s"\\]{0,1024}){0,64}'),
    "'": re.compile(r"[^\s'\\]{0,1024}(?:\\.[^\s'\\]{0,1024}){0,64}"),
    "nested": re.compile(r"[^\s\"'\\]{0,1024}"),
    "bare": re.compile(rf"{_BARE}:=]{{0,1024}}(?:(?:[:=]|\\/){{1,2}}{_BARE}:=]{{1,1024}}){{0,4}}={{0,2}}"),
}
_REST = re.compile(rf"(?:{_BARE}]+|\\/)*")


def _value_span(text: str, start: int) -> tuple[int, int] | None:
    opening = _OPENING.match(text, start)
    assert opening is not None  # every part of it is optional
    quote = opening["quote"]
    kind = "bare" if quote is None else quote if len(quote) == 1 else "nested"
    match = _VALUES[kind].match(text, opening.end())
    assert match is not None
    begin, end = match.span()
    follows = text[end : end + 1]
    if quote is not None and follows not in ("", quote[0]):
        return None  # a sentence, not a token
    if quote is None and follows in ("(", "[") and (match[0].isidentifier() or _DOTTED.fullmatch(match[0])):
        return None  # a call or a subscript
    value = match[0].rstrip(".:!?") if quote is None else match[0]
    if not looks_random(value, quoted=quote is not None):
        return None
    if quote is None or len(value) >= 1024:
        rest = _REST.match(text, end)
        assert rest is not None
        end = rest.end()
    if quote is None:
        end = begin + len(text[begin:end].rstrip(".:!?"))
    return begin, end


_TEMPLATE = re.compile(r"^[$<*{%(\[]|\{\w*\}|\$\{|^(?:[.~]{0,2}/|\w+://)|\*{3}|\.{3}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9/+]{40,}={0,2}")
_DIGEST = re.compile(r"(?:b3|sha\d{1,3}|md5|secret):[0-9a-f]{32,}")
_NUMBER = re.compile(r"[-+]?(?:0x[0-9a-fA-F]{1,10}|[\d_.,:TZ+-]+(?:[eE][-+]?\d+)?[a-zA-Z%]{0,2})")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
_WORDS = re.compile(r"[A-Za-z_][A-Za-z_-]*\d?(?:[A-Za-z_-]+|(?:16|32|64|128|256|384|512|1024)(?:_\w+|[a-z]{1,3})?)?")


def looks_random(value: str, *, quoted: bool) -> bool:
    """Whether a value is more likely a credential than a word, a number, an identifier or a template.

    >>> looks_random("hunter22", quoted=False), looks_random("get_token", quoted=False)
    (True, False)
    """
    if len(value) < 8 or _DIGEST.match(value) or _NUMBER.fullmatch(value):
        return False
    if _TEMPLATE.search(value):  # one in 64 base64 keys starts like a path
        return _BASE64.fullmatch(value) is not None and not _mostly_words(value)
    digits = sum(map(str.isdigit, value))
    upper = any(map(str.isupper, value))
    lower = any(map(str.islower, value))
    if not (upper or lower):
        return False
    if digits == 0:
        if quoted and upper and lower and any(sign in value for sign in "!@#$%^&*?~+="):
            return True
        return len(value) >= 16 and _case_changes(value) * 3 >= len(value) and not _mostly_words(value)
    if quoted:
        return True
    return not _DOTTED.fullmatch(value) and not _WORDS.fullmatch(value)


_WORD = re.compile("/?[A-Z]?[a-z]{2,}")


def _mostly_words(value: str) -> bool:
    return sum(map(len, _WORD.findall(value))) * 4 >= len(value) * 3


def _case_changes(value: str) -> int:
    """`aBcDe` has 4, `HttpRequestHandler` has 5: random letters change case at every second letter."""
    return sum(a.isupper() != b.isupper() for a, b in pairwise(value) if a.isalpha() and b.isalpha())


_LONG_ALNUM = re.compile(r"[A-Za-z0-9]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _random_key(match: re.Match[str]) -> bool:
    """`sk-` starts many a CSS class (`sk-estimator-doc-link`); a key has a long unbroken part, or case and digits."""
    key = match[0][3:]
    part = _LONG_ALNUM.search(key)
    if part is not None and any(map(str.isdigit, part[0])):
        return True
    changes = _case_changes(key) * 4 >= len(key)
    return changes or (any(map(str.isdigit, key)) and any(map(str.isupper, key)) and any(map(str.islower, key)))


def _random_secret(match: re.Match[str]) -> bool:
    return looks_random(match["secret"], quoted=False)


def _has_key_material(match: re.Match[str]) -> bool:
    return _KEY_MATERIAL.search(match[0], len("-----BEGIN ")) is not None


def _not_a_template(match: re.Match[str]) -> bool:
    password = match["secret"]
    return _TEMPLATE.search(password) is None and password.lower() not in {"password", "passwd", "pass", "secret", "pw"}


_KEY_MATERIAL = re.compile(r"[A-Za-z0-9+/]{32}")
_BREAK = r"(?:\s|\\{1,7}[nrt])"


def _start(literal: str) -> str:
    """`literal` where a word starts; `\\n` written as an escape ends a word too."""
    return rf"{literal}(?:(?<![A-Za-z0-9_-]{literal})|(?<=\\[nrt]{literal}))"


def _solid(name: str, regex: str, *anchors: str, accept: Callable[[re.Match[str]], bool] | None = None) -> Pattern:
    return Pattern(name, regex, anchors, True, accept)


DEFAULT: tuple[Pattern, ...] = (
    _solid("anthropic", rf"sk-ant-{_RUN}{{20,}}", "sk-ant-"),
    _solid("openai-project", rf"sk-(?:proj|svcacct|admin)-{_RUN}{{20,}}", "sk-proj-", "sk-svcacct-", "sk-admin-"),
    _solid("openai", rf"sk-(?:(?<![A-Za-z0-9]sk-)|(?<=\\[nrt]sk-)){_RUN}{{20,}}", "sk-", accept=_random_key),
    Pattern("aws-access-key-id", "A[KS]IA(?![A-Z0-9]{0,12}AAAA)[A-Z0-9]{16}", ("AKIA", "ASIA")),  # AAAA: an image
    _solid("github", rf"gh[opsur]_{_ALNUM}{{36,}}", "ghp_", "gho_", "ghs_", "ghu_", "ghr_"),
    _solid("github-fine-grained", r"github_pat_\w{36,}", "github_pat_"),
    _solid("gitlab", rf"glpat-{_RUN}{{20,}}", "glpat-"),
    _solid("slack", rf"xox[a-z]-{_RUN}{{20,}}", "xox"),
    _solid("slack-app", rf"xapp-{_RUN}{{20,}}", "xapp-"),
    _solid("google-api-key", rf"AIza{_RUN}{{35}}", "AIza"),
    _solid("google-oauth", rf"ya29\.{_RUN}{{20,}}", "ya29."),
    _solid("hugging-face", rf"hf_{_ALNUM}{{30,}}", "hf_"),
    _solid("stripe", rf"[rs]k_(?:live|test)_{_ALNUM}{{20,}}", "k_live_", "k_test_"),
    _solid("npm", rf"npm_{_ALNUM}{{36}}", "npm_"),
    _solid("pypi", rf"pypi-{_RUN}{{40,}}", "pypi-"),
    _solid("sendgrid", rf"SG\.{_RUN}{{16,64}}\.{_RUN}{{16,64}}", "SG."),
    _solid("twilio", r"SK[0-9a-f]{32}", "SK"),
    _solid("jwt", rf"{_start('eyJ')}{_RUN}{{8,}}\.{_RUN}{{8,}}\.{_RUN}*(?:\.{_RUN}+){{0,2}}", "eyJ"),
    _solid("bearer", r"earer (?P<secret>[A-Za-z0-9._~+/-]{20,}={0,2})", "earer ", accept=_random_secret),
    _solid(
        "flag",
        r"--(?<!---)[a-z-]{0,32}?(?:password|token|secret|key) (?P<secret>[A-Za-z0-9._~+/-]{20,}={0,2})",
        "password ",
        "token ",
        "secret ",
        "key ",
        accept=_random_secret,
    ),
    _solid("azure-signature", r"sig=(?P<secret>[A-Za-z0-9%+/]{40,}={0,2})", "sig="),
    _solid("aws-signature", r"X-Amz-Signature=(?P<secret>[0-9a-f]{64})", "X-Amz-Signature="),
    _solid(
        "private-key",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-(?!----)[^-]*)*"
        r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
        "KEY-----",
        "BLOCK-----",
        accept=_has_key_material,
    ),
    _solid(  # cut off before its end
        "open-private-key",
        rf"-----BEGIN [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----{_BREAK}*"
        rf"(?:(?:Proc-Type|DEK-Info|Version|Comment): ?[^\n\\]*{_BREAK}+)*"
        rf"[A-Za-z0-9+/=]{{32,}}(?:{_BREAK}+[A-Za-z0-9+/=]{{16,}})*",
        "KEY-----",
        "BLOCK-----",
    ),
    Pattern(
        "url-password",
        r"://[^\s/?#\"'<>@:]{0,256}:(?P<secret>[^\s/?#\"'<>]{1,256})@(?=[\w.\[%-])",
        ("@",),
        accept=_not_a_template,
    ),
    Assignment("assigned", _sign("="), ("=",)),
    Assignment("labelled", _sign(":"), (":",)),
)
"""The patterns of a `Redactor` that is given none."""
