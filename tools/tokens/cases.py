"""Hostile tokens, and good ones beside them. What must be said of each stands here by hand, not by either implementation."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

from tools.tokens.issuers import AUDIENCE, NAME, NOW
from tools.tokens.signing import KEYS, b64, compact, number, pss, public, signature, token

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SECONDS = NOW // 1000
CLAIMS: dict[str, Any] = {"iss": NAME, "aud": AUDIENCE, "sub": "robot-7", "iat": SECONDS - 60, "exp": SECONDS + 300}
HEADER = {"alg": "ES256", "kid": "ec-1", "typ": "at+jwt"}
Case = tuple[str, str, str, str]  # name, issuer, token, verdict: "accept" or why it is refused


def es256(payload: Any = None, header: Any = None) -> str:
    return token(HEADER if header is None else header, CLAIMS if payload is None else payload, key="p256", algorithm="ES256")


def headed(**changes: Any) -> str:
    return es256(header=HEADER | changes)


def claiming(**changes: Any) -> str:
    return es256(without(CLAIMS | changes))


def without(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def number_bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def raw(text: str) -> str:
    """ES256 over a payload written by hand: the claims, then `text` inside the object."""
    return es256(compact(CLAIMS)[:-1] + text.encode() + b"}")


def algorithms() -> Iterator[Case]:
    for algorithm, key in [*((f"{kind}{bits}", "rsa") for kind in ("RS", "PS") for bits in (256, 384, 512)), ("ES256", "p256"), ("ES384", "p384"),
                           ("EdDSA", "ed"), ("Ed25519", "ed")]:  # fmt: skip
        header = {"alg": algorithm, "kid": KEYS[key]["kid"]}
        yield f"good {algorithm}", algorithm.lower(), token(header, CLAIMS, key=key, algorithm=algorithm), "accept"
    for named in ("none", "None", "nOnE", "", "HS256", "RS256", "es256", "ES512", "ES256K", "EdDSA"):
        yield f"alg {named!r} with a good ES256 signature", "es256", headed(alg=named), "algorithm"
    unsigned = f"{b64(compact({'alg': 'none'}))}.{b64(compact(CLAIMS))}."
    yield "alg none without a signature", "es256", unsigned, "malformed"
    yield "alg none with some signature", "es256", unsigned + "AAAA", "algorithm"
    message = f"{b64(compact({'alg': 'HS256', 'kid': 'rsa-1'}))}.{b64(compact(CLAIMS))}"
    for what, secret in (("modulus", number(KEYS["rsa"]["n"]).to_bytes(256)), ("JWK", compact(public("rsa"))), ("nothing", b"")):
        forged = hmac.new(secret, message.encode(), hashlib.sha256).digest()
        yield f"HS256 keyed with the public {what}", "rs256", f"{message}.{b64(forged)}", "algorithm"
        yield f"HS256 keyed with the public {what}, a secret in the set", "secret in the set", f"{message}.{b64(forged)}", "algorithm"
    yield "RS256 where PS256 is set", "ps256", token({"alg": "RS256", "kid": "rsa-1"}, CLAIMS, key="rsa", algorithm="RS256"), "algorithm"
    yield "said PS256, signed RS256", "ps256", token({"alg": "PS256", "kid": "rsa-1"}, CLAIMS, key="rsa", algorithm="RS256"), "signature"
    message = f"{b64(compact({'alg': 'PS256', 'kid': 'rsa-1'}))}.{b64(compact(CLAIMS))}"
    yield "PS256 with an empty salt", "ps256", f"{message}.{b64(pss(KEYS['rsa'], message.encode(), 256, b''))}", "signature"
    yield (
        "said EdDSA where Ed25519 is set",
        "ed25519",
        token({"alg": "EdDSA", "kid": "ed-1"}, CLAIMS, key="ed", algorithm="EdDSA"),
        "algorithm",
    )
    for what, header in (("missing", {"kid": "ec-1"}), ("null", {"alg": None}), ("a list", {"alg": ["ES256"]}), ("a number", {"alg": 256})):
        yield f"alg {what}", "es256", es256(header=header), "algorithm"


def keys() -> Iterator[Case]:
    yield "no kid, several keys", "es256", es256(header={"alg": "ES256"}), "key"
    yield "no kid, one key", "one key", es256(header={"alg": "ES256"}), "accept"
    yield "a kid where the only key has none", "one key", es256(), "key"
    for what, kid in (("unknown", "ec-9"), ("in capitals", "EC-1"), ("of a key of another kind", "rsa-1"), ("a path", "../../ec-1"), ("empty", ""),
                      ("with SQL", "ec-1' or '1'='1")):  # fmt: skip
        yield f"kid {what}", "es256", headed(kid=kid), "key"
    for what, kid in (("a number", 1), ("null", None), ("an object", {"ec-1": 1})):
        yield f"kid {what}", "es256", headed(kid=kid), "malformed"
    yield "kid of another key of the issuer", "es256", headed(kid="ec-2"), "signature"
    yield "signed by a stranger", "one key", token({"alg": "ES256"}, CLAIMS, key="p256_other", algorithm="ES256"), "signature"
    for named in ("for encryption", "may not verify", "one id twice", "weak curve", "no keys", "padded key"):
        yield f"key set: {named}", named, es256(), "key"
    yield "key set: two kinds with one id", "one id, two kinds", es256(), "accept"
    yield "key set: not on its curve", "off the curve", es256(), "signature"
    forged = token(HEADER | {"kid": "ec-k"}, CLAIMS, key="k256", algorithm="ES256")
    yield "key set: secp256k1", "weak curve", forged, "key"
    yield "key set: secp256k1 under another name", "curve renamed", forged, "signature"
    for named, key in (("short rsa", "rsa_short"), ("small exponent", "rsa"), ("of another algorithm", "rsa")):
        yield f"key set: {named}", named, token({"alg": "RS256", "kid": KEYS[key]["kid"]}, CLAIMS, key=key, algorithm="RS256"), "key"
    message = f"{b64(compact({'alg': 'EdDSA', 'kid': 'ed-1'}))}.{b64(compact(CLAIMS))}"
    yield "key set: another EdDSA key", "key of zeros", f"{message}.{b64(signature('EdDSA', 'ed', message.encode()))}", "signature"


def headers() -> Iterator[Case]:
    for crit in (["exp"], ["b64"], [], None):
        yield f"crit {json.dumps(crit)}", "es256", headed(crit=crit), "critical"
    yield "b64 false", "es256", headed(b64=False), "embedded"
    yield "b64 false, critical", "es256", headed(b64=False, crit=["b64"]), "critical"
    own = public("p256_other", kid=None)
    yield "brings its own key (jwk)", "es256", token(HEADER | {"jwk": own}, CLAIMS, key="p256_other", algorithm="ES256"), "embedded"
    for name, value in (("jku", "https://evil.example/jwks"), ("x5u", "https://evil.example/cert"), ("x5c", ["MIIB"]), ("zip", "DEF"),
                        ("enc", "A256GCM"), ("cty", "JWT"), ("jwk", None)):  # fmt: skip
        yield f"header has {name}", "es256", headed(**{name: value}), "embedded"
    yield "x5t and unknown members mean nothing", "es256", headed(x5t="abc", ext=5, nonce={"a": [1]}), "accept"
    for kind in ("JWT", "jwt", "AT+JWT", "application/at+jwt"):
        yield f"typ {kind}", "es256", headed(typ=kind), "accept"
    for kind in ("dpop+jwt", "logout+jwt", "", "jwt ", "at+\u017ewt", "\uff4awt", 5, None):
        yield f"typ {json.dumps(kind)}", "es256", headed(typ=kind), "type"
    for text in ('{"alg":"ES256","alg":"none","kid":"ec-1"}', '{"alg":"none","\\u0061lg":"ES256","kid":"ec-1"}', '{"alg":"ES256","kid":"ec-1"} ,',
                 '["ES256"]', '"ES256"', "", "\ufeff" + json.dumps(HEADER), "{'alg':'ES256'}", '{"alg":"ES256","x":NaN}'):  # fmt: skip
        yield f"header {text[:40]!r}", "es256", es256(header=text.encode()), "malformed"
    yield "header in UTF-16", "es256", es256(header=json.dumps(HEADER).encode("utf-16-le")), "malformed"
    yield "header with white space", "es256", es256(header=(" \n" + json.dumps(HEADER) + "\t\r").encode()), "accept"


def forms() -> Iterator[Case]:
    good = es256()
    head, body, sign = good.split(".")
    pieces = {"empty": "", "one part": head, "two parts": f"{head}.{body}", "four parts": good + ".", "a JWE": f"{good}.{sign}.{sign}", "dots": "..",
              "header missing": f".{body}.{sign}", "payload missing": f"{head}..{sign}", "signature missing": f"{head}.{body}.",
              "detached content": f"{head}..{sign}", "dot before": "." + good, "space before": " " + good, "space after": good + " ",
              "line end after": good + "\n", "line end inside": f"{head}.{body[:20]}\n{body[20:]}.{sign}", "NUL after": good + "\0",
              "padding after": good + "==", "padding in the payload": f"{head}.{body}=.{sign}", "percent": good.replace("-", "%2D") + "%",
              "ordinary base64": f"{head}.{body}.{sign.replace('_', '/').replace('-', '+')}+", "cyrillic letter": good.replace("e", "\u0435", 1),
              "full-width dot": f"{head}\uff0e{body}.{sign}", "a JSON serialisation": json.dumps({"payload": body, "signature": sign})}  # fmt: skip
    yield from ((f"form: {name}", "es256", text, "malformed") for name, text in pieces.items())
    yield "form: truncated signature", "es256", good[:-2], "signature"
    yield "form: one character less", "es256", good[:-1], "malformed"
    yield "form: longer signature", "es256", good + "AAAA", "signature"
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    yield "form: unused bits of the signature set", "es256", good[:-1] + last[last.index(good[-1]) + 1], "malformed"
    yield "form: 8 KiB and a byte", "es256", good + "A" * (8193 - len(good)), "too_large"
    filler = "x" * 5_700
    yield "form: nearly 8 KiB", "es256", claiming(note=filler), "accept"
    yield "form: a megabyte", "es256", "A" * (1 << 20), "too_large"
    yield "form: a megabyte of dots", "es256", "." * (1 << 20), "too_large"


def signatures() -> Iterator[Case]:
    good = es256()
    message = good.rsplit(".", 1)[0]
    value = signature("ES256", "p256", message.encode())
    r, s = int.from_bytes(value[:32]), int.from_bytes(value[32:])
    yield (
        "signature: the other s (malleable, and said to be the same)",
        "es256",
        f"{message}.{b64(value[:32] + (P256_ORDER - s).to_bytes(32))}",
        "accept",
    )
    numbers = {"zeros": (0, 0), "r zero": (0, s), "s zero": (r, 0), "s is the order": (r, P256_ORDER), "r is the order": (P256_ORDER, s),
               "r and s exchanged": (s, r), "ones": (1, 1), "all bits": (2**256 - 1, 2**256 - 1)}  # fmt: skip
    for name, (one, two) in numbers.items():
        yield f"signature: {name}", "es256", f"{message}.{b64(one.to_bytes(32) + two.to_bytes(32))}", "signature"
    for at in (0, 31, 32, 63):
        broken = bytearray(value)
        broken[at] ^= 1
        yield f"signature: bit of byte {at}", "es256", f"{message}.{b64(bytes(broken))}", "signature"
    der = b"\x30\x44\x02\x20" + value[:32] + b"\x02\x20" + value[32:]
    yield "signature: in DER", "es256", f"{message}.{b64(der)}", "signature"
    yield "signature: zero before r", "es256", f"{message}.{b64(bytes(1) + value)}", "signature"
    other = claiming(sub="root").split(".")[1]
    yield "signature of another payload", "es256", f"{message.split('.')[0]}.{other}.{b64(value)}", "signature"
    edwards = token({"alg": "EdDSA", "kid": "ed-1"}, CLAIMS, key="ed", algorithm="EdDSA")
    head, _, sign = edwards.rpartition(".")
    scalar = int.from_bytes(number_bytes(sign)[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    yield (
        "signature: EdDSA with s beyond the order",
        "eddsa",
        f"{head}.{b64(number_bytes(sign)[:32] + scalar.to_bytes(32, 'little'))}",
        "signature",
    )
    rsa = token({"alg": "RS256", "kid": "rsa-1"}, CLAIMS, key="rsa", algorithm="RS256")
    head, _, sign = rsa.rpartition(".")
    yield "signature: RSA with a zero before", "rs256", f"{head}.{b64(bytes(1) + number_bytes(sign))}", "signature"
    yield "signature: RSA of zeros", "rs256", f"{head}.{b64(bytes(256))}", "signature"
    larger = number(sign) + number(KEYS["rsa"]["n"])
    yield "signature: RSA plus the modulus", "rs256", f"{head}.{b64(larger.to_bytes(257))}", "signature"


def names() -> Iterator[Case]:
    bad_issuers = (NAME + "/", NAME[:-1], NAME.upper(), NAME + ".evil.example", "https://evil.example/" + NAME, NAME + "\0", NAME + " ",
                   NAME.replace("a", "\u0430", 1), NAME.replace(".", "\uff0e", 1), "")  # fmt: skip
    for name in bad_issuers:
        yield f"iss {name!r}", "es256", claiming(iss=name), "issuer"
    for what, value in (("missing", None), ("a list", [NAME]), ("an object", {NAME: 1}), ("a number", 5)):
        yield f"iss {what}", "es256", claiming(iss=value), "issuer"
    yield "iss with escapes is the same", "es256", es256(compact(CLAIMS).replace(b"login", b"\\u006cogin")), "accept"
    for what, value in (("one of many", ["x", AUDIENCE]), ("the second one", "api://second"), ("doubled", [AUDIENCE, AUDIENCE])):
        yield f"aud {what}", "es256", claiming(aud=value), "accept"
    for what, value in (("another", "tenon:other"), ("missing", None), ("an empty list", []), ("a prefix", AUDIENCE[:-1]), ("longer", AUDIENCE + "x"),
                        ("in capitals", AUDIENCE.upper()), ("by commas", f"x,{AUDIENCE}"), ("by spaces", f"x {AUDIENCE}"), ("empty", ""),
                        ("a star", "*"), ("a letter of it", [*AUDIENCE])):  # fmt: skip
        yield f"aud {what}", "es256", claiming(aud=value), "audience"
    for what, value in (("a number", 5), ("true", True), ("an object", {AUDIENCE: 1}), ("a list of lists", [[AUDIENCE]]),
                        ("a list with a number", [AUDIENCE, 5]), ("a list with null", [AUDIENCE, None])):  # fmt: skip
        yield f"aud {what}", "es256", claiming(aud=value), "claims"
    yield "aud null", "es256", es256(CLAIMS | {"aud": None}), "claims"
    yield "no sub, client_id", "es256", claiming(sub=None, client_id="client-1"), "accept"
    yield "no sub, azp", "es256", claiming(sub=None, azp="client-2"), "accept"
    yield "sub goes before client_id", "es256", claiming(client_id="other"), "accept"
    yield "no subject at all", "es256", claiming(sub=None), "subject"
    subjects: list[tuple[str, Any, str]] = [
        ("empty", "", "subject"),
        ("256 bytes", "s" * 256, "subject"),
        ("128 letters of two bytes", "\u00e9" * 128, "subject"),
        ("a number", 7, "claims"),
        ("a list", ["robot-7"], "claims"),
        ("true", True, "claims"),
        ("255 bytes", "s" * 255, "accept"),
        ("with NUL", "robot-7\0", "accept"),
        ("another case", "ROBOT-7", "accept"),
    ]
    for what, value, verdict in subjects:
        yield f"sub {what}", "es256", claiming(sub=value), verdict
    yield "sub null", "es256", es256(CLAIMS | {"sub": None, "client_id": "c"}), "claims"
    yield "sub empty, client_id given", "es256", claiming(sub="", client_id="c"), "subject"


def times() -> Iterator[Case]:
    good = {
        "exactly at its end": (0, "expired"),
        "a second before": (1, "accept"),
        "a second after": (-1, "expired"),
        "0": (-SECONDS, "expired"),
    }
    for what, (after, verdict) in good.items():
        yield f"exp {what}", "es256", claiming(exp=SECONDS + after), verdict
    yield "exp a millisecond before, as a float", "es256", claiming(exp=SECONDS + 0.001), "accept"
    yield "exp as a float in the past", "es256", claiming(exp=SECONDS - 0.001), "expired"
    yield "exp within the leeway", "leeway", claiming(exp=SECONDS - 29), "accept"
    yield "exp at the end of the leeway", "leeway", claiming(exp=SECONDS - 30), "expired"
    yield "exp 9999-12-31", "es256", claiming(exp=253_402_300_799), "accept"
    yield "exp written 1.9e9 and more", "es256", es256(compact(CLAIMS).replace(str(SECONDS + 300).encode(), b"1.9000003e9")), "accept"
    for what, value in (("missing", None), ("a text", str(SECONDS + 300)), ("true", True), ("negative", -1), ("a list", [SECONDS + 300]),
                        ("after 9999", 253_402_300_800), ("in milliseconds", NOW + 300_000), ("1e300", 1e300), ("10^40", 10**40)):  # fmt: skip
        yield f"exp {what}", "es256", claiming(exp=value), "claims"
    yield "exp null", "es256", es256(CLAIMS | {"exp": None}), "claims"
    for text in ("1e999", "NaN", "Infinity", "-Infinity", "0x7fffffff", "01", "+1", "1.", ".5", "1_000", "9" * 400):
        payload = compact(CLAIMS).replace(str(SECONDS + 300).encode(), text.encode())
        yield f"exp {text[:12]}", "es256", es256(payload), "malformed"
    yield "exp -0", "es256", es256(compact(CLAIMS).replace(str(SECONDS + 300).encode(), b"-0")), "expired"
    for name in ("nbf", "iat"):
        yield f"{name} now", "es256", claiming(**{name: SECONDS}), "accept"
        yield f"{name} in a second", "es256", claiming(**{name: SECONDS + 1}), "not_yet"
        yield f"{name} within the leeway", "leeway", claiming(**{name: SECONDS + 30}), "accept"
        yield f"{name} beyond the leeway", "leeway", claiming(**{name: SECONDS + 31}), "not_yet"
        yield f"{name} a text", "es256", claiming(**{name: str(SECONDS)}), "claims"
        yield f"{name} negative", "es256", claiming(**{name: -5}), "claims"
        yield f"{name} false", "es256", claiming(**{name: False}), "claims"
    yield "iat missing", "es256", claiming(iat=None), "accept"
    yield "lives as long as it may", "lifetime", claiming(iat=SECONDS - 100, exp=SECONDS + 500), "accept"
    yield "lives a second longer", "lifetime", claiming(iat=SECONDS - 100, exp=SECONDS + 501), "lifetime"
    yield "does not say since when it is valid", "lifetime", claiming(iat=None), "lifetime"
    yield "issued after its end", "es256", claiming(iat=SECONDS - 10, exp=SECONDS - 20), "expired"


def payloads() -> Iterator[Case]:
    twice = {"aud": f',"aud":"{AUDIENCE}"', "exp": ',"exp":9999999999', "sub": ',"sub":"root"', "sub, escaped": ',"\\u0073ub":"root"',
             "iss": f',"iss":"{NAME}"', "a name nobody reads": ',"x":1,"x":1', "deep inside": ',"x":[{"y":{"a":1,"a":2}}]'}  # fmt: skip
    yield from ((f"twice: {name}", "es256", raw(text), "malformed") for name, text in twice.items())
    yield "the same name at different depths", "es256", raw(',"x":{"x":{"sub":"root"}}'), "accept"
    yield "names that differ in case", "es256", raw(',"SUB":"root","Exp":1'), "accept"
    for depth, verdict in ((15, "accept"), (16, "malformed"), (200, "malformed"), (1_500, "malformed")):
        yield f"nested {depth} deep", "es256", raw(f',"x":{"[" * depth}{"]" * depth}'), verdict
    for text in (',"x":"\\ud800"', ',"x":"\\udc00\\ud800"', ',"\\ud800":1', ',"x":"a\nb"', ',"x":"\\x41"', ',"x":undefined', ",", ',"x"', ',"x":1,',
                 ',"x":tru', "} {"):  # fmt: skip
        yield f"payload with {text[:24]!r}", "es256", raw(text), "malformed"
    yield "payload with a surrogate pair", "es256", raw(',"x":"\\ud83d\\ude00"'), "accept"
    yield "payload with large numbers", "es256", raw(',"x":123456789012345678901234567890,"y":1e300,"z":-0.0'), "accept"
    good, opened = compact(CLAIMS), compact(CLAIMS)[:-1]
    strange = {
        "a list": b"[]",
        "a text": b'"x"',
        "null": b"null",
        "a number": b"1",
        "not UTF-8": opened + b',"x":"\xff"}',
        "overlong UTF-8": opened + b',"x":"\xc0\x80"}',
        "a surrogate in UTF-8": opened + b',"x":"\xed\xa0\x80"}',
        "two objects": good * 2,
        "with a byte order mark": b"\xef\xbb\xbf" + good,
        "UTF-16": json.dumps(CLAIMS).encode("utf-16"),
        "a comment": good + b"//",
        "nested token": es256().encode(),
    }
    for what, text in strange.items():
        yield f"payload is {what}", "es256", es256(text), "malformed"
    yield "an empty object", "es256", es256(b"{}"), "claims"


def all_cases() -> list[Case]:
    """In a fixed order."""
    groups = (algorithms, keys, headers, forms, signatures, names, times, payloads)
    return [case for group in groups for case in group()]
