"""Checks the gateway's tokens as a service in Python would: with PyJWT and the published keys alone.

Reads cases as JSON on standard input, [{"name", "jwks", "jwt", "typ", "iss", "aud", "good"}], and fails if one is judged
otherwise than said.
"""

import json
import sys

import jwt

ALGORITHMS = ["ES256", "EdDSA", "RS256"]


def judge(case):
    keys = jwt.PyJWKClient(case["jwks"])
    try:
        if jwt.get_unverified_header(case["jwt"]).get("typ") != case["typ"]:
            return "the type is another"
        key = keys.get_signing_key_from_jwt(case["jwt"])
        jwt.decode(
            case["jwt"],
            key,
            algorithms=ALGORITHMS,
            issuer=case["iss"],
            audience=case["aud"],
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except jwt.PyJWTError as error:
        return f"{type(error).__name__}: {error}"
    return None


wrong = 0
for case in json.load(sys.stdin):
    refused = judge(case)
    if (refused is None) != case["good"]:
        wrong += 1
        print(f"{case['name']}: {refused or 'accepted'}")
sys.exit(1 if wrong else 0)
