#!/usr/bin/env bash
# Holds the public endpoints to what /openapi.json says of them, with schemathesis, against `wxgate demo`: as a member, and
# as nobody. Usage: WXGATE=target/debug/wxgate scripts/openapi.sh
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
: "${WXGATE:?names the binary}"
command -v python3 >/dev/null || { echo "Missing: python3 with venv. Install it (Debian: apt-get install python3-venv)."; exit 1; }

work=$(mktemp -d)
demo=
stop() {
    [ -z "$demo" ] || { kill "$demo" && wait "$demo"; }
    rm -rf "$work"
}
trap stop EXIT

python3 -m venv "$work/venv" || exit 1
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'schemathesis==4.*' || exit 1

"$WXGATE" demo --listen 127.0.0.1:0 --admin 127.0.0.1:0 --internal 127.0.0.1:0 --data "$work/data" >"$work/demo" 2>"$work/log" &
demo=$!
until grep -q '^Stop with' "$work/demo"; do
    kill -0 "$demo" 2>/dev/null || { cat "$work/log"; exit 1; }
    sleep 0.1
done
at() { sed -n "s|^ *$1 *\(http://[0-9.:]*\).*|\1|p" "$work/demo" | head -n 1; }
gateway=$(at gateway)
text() { sed "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/"; }
code=$(curl -sf "$(at 'WeChat simulator')/_sim/code?user=alice" | text code)
token=$(curl -sf "$gateway/auth/login" -d "{\"code\":\"$code\"}" | text access_token)
[ -n "$token" ] || { echo "no login"; exit 1; }

checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks=$checks,response_schema_conformance,unsupported_method,allow_header_conformance
ask() {
    (cd "$work" && "$work/venv/bin/schemathesis" --config-file "$OLDPWD/tests/openapi/schemathesis.toml" run \
        "$gateway/openapi.json" --checks "$checks" --phases examples,coverage,fuzzing --max-examples 20 \
        --warnings off --request-timeout 30 --continue-on-failure "$@")
}
# A member who logs out or erases himself is asked about nothing any more: those two as nobody.
ask --header "Authorization: Bearer $token" --exclude-method DELETE --exclude-path /auth/logout || exit 1
ask
