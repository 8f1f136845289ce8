"""Named attacks and malformed requests: each is answered with its documented status, and nothing goes upstream."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

import pytest

from streamguard.http.limits import Limits
from streamguard.http.refusals import REFUSALS
from streamguard.testing import wire
from tests.proxy.running import KEY, REQUEST, Running, error_of, exchange, head_of, served

BODY = json.dumps(REQUEST | {"stream": True}).encode()
GOOD = [wire.text_stream("fine")]
LIMITS = Limits(
    head_bytes=8192,
    target_bytes=2048,
    body_bytes=65_536,
    headers=40,
    body_values=1000,
    head_seconds=0.1,
    body_seconds=0.1,
)


def post(
    *lines: str,
    body: bytes = BODY,
    target: str = "/v1/messages",
    host: str | None = "localhost",
    kind: str = "application/json",
    length: bool = True,
    method: str = "POST",
) -> bytes:
    """A request of raw bytes, well-formed but for what is passed in."""
    head = [f"{method} {target} HTTP/1.1"]
    head += [f"host: {host}"] if host is not None else []
    head += [f"x-api-key: {KEY}", f"content-type: {kind}", *lines]
    head += [f"content-length: {len(body)}"] if length else []
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, trailer: bytes = b"\r\n") -> bytes:
    head = post("transfer-encoding: chunked", body=b"", length=False)
    return head + b"".join(chunks) + b"0\r\n" + trailer


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


BOMB = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
BOMB_BYTES = BOMB.compress(bytes(20_000_000)) + BOMB.flush()
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-api-key: k\r\n\r\n"

ATTACKS: dict[str, tuple[bytes, str]] = {
    # Smuggling: two readers of the same bytes
    "cl_and_te": (post("transfer-encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), "two_lengths"),
    "te_and_cl": (
        post("content-length: 5", "transfer-encoding: chunked", body=chunk(BODY), length=False),
        "two_lengths",
    ),
    "two_content_lengths": (post(f"content-length: {len(BODY) + 5}"), "bad_content_length"),
    "two_equal_content_lengths": (post(f"content-length: {len(BODY)}"), "bad_content_length"),
    "content_length_list": (post(f"content-length: {len(BODY)}, {len(BODY)}", length=False), "bad_content_length"),
    "content_length_plus": (post(f"content-length: +{len(BODY)}", length=False), "bad_content_length"),
    "content_length_negative": (post("content-length: -1", length=False), "bad_content_length"),
    "content_length_hex": (post("content-length: 0x10", length=False), "bad_content_length"),
    "te_twice": (post("transfer-encoding: chunked", "transfer-encoding: chunked", length=False), "bad_transfer_encoding"),
    "te_list": (post("transfer-encoding: gzip, chunked", length=False), "bad_transfer_encoding"),
    "te_obfuscated": (post("transfer-encoding: xchunked", length=False), "bad_transfer_encoding"),
    "te_vertical_tab": (post("transfer-encoding: \x0bchunked", length=False), "bad_header"),
    "te_in_http_1_0": (
        chunked(chunk(BODY)).replace(b"HTTP/1.1", b"HTTP/1.0"),
        "bad_transfer_encoding",
    ),
    "space_before_colon": (post("transfer-encoding : chunked", length=False), "bad_header"),
    "folded_header": (post("x-a: b", " transfer-encoding: chunked"), "folded_header"),
    "bare_line_feed": (post().replace(b"\r\n", b"\n"), "bad_line_end"),
    "one_bare_line_feed": (post("x-a: b\nx-b: c"), "bad_line_end"),
    "bare_carriage_return": (post("x-a: b\rx-b: c"), "bad_line_end"),
    "nul_in_value": (post("x-a: b\x00c"), "bad_header"),
    "nul_in_name": (post("x\x00-a: b"), "bad_header"),
    "header_without_colon": (post("x-a"), "bad_header"),
    "chunk_extension": (chunked(chunk(BODY, b";a=b")), "bad_chunk"),
    "chunk_size_bare_lf": (post("transfer-encoding: chunked", length=False, body=b"5\nhello\r\n0\r\n\r\n"), "bad_chunk"),
    "chunk_size_sign": (post("transfer-encoding: chunked", length=False, body=b"-5\r\nhello\r\n"), "bad_chunk"),
    "chunk_size_0x": (post("transfer-encoding: chunked", length=False, body=b"0x5\r\nhello\r\n"), "bad_chunk"),
    "chunk_size_huge": (post("transfer-encoding: chunked", length=False, body=b"fffffffff\r\n"), "bad_chunk"),
    "chunk_size_space": (post("transfer-encoding: chunked", length=False, body=b"5 \r\nhello\r\n"), "bad_chunk"),
    "chunk_too_long": (post("transfer-encoding: chunked", length=False, body=b"5\r\nhelloX\r\n"), "bad_chunk"),
    "tiny_chunks": (chunked(*[chunk(b"x")] * 2000), "tiny_chunks"),
    "trailers": (chunked(chunk(BODY), trailer=b"x-api-key: other\r\n\r\n"), "bad_trailer"),
    "get_with_body": (post(method="GET", target="/v1/models"), "bodyless_method"),
    "no_request_line": (b"\r\n" + post(), "bad_request_line"),
    "two_spaces": (post().replace(b"POST ", b"POST  "), "bad_request_line"),
    "http_0_9": (b"GET /v1/models\r\n\r\n", "bad_request_line"),
    "http_2_preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_version"),
    # Relays and other places
    "connect": (b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n", "bad_method"),
    "trace": (post(method="TRACE"), "bad_method"),
    "absolute_uri": (post(target="http://attacker.example/v1/messages"), "bad_target"),
    "authority_path": (post(target="//attacker.example/v1/messages"), "bad_target"),
    "asterisk": (post(method="OPTIONS", target="*", length=False, body=b""), "bad_target"),
    "fragment": (post(target="/v1/messages#@attacker.example"), "bad_target"),
    "backslash": (post(target="/\\attacker.example/v1/messages"), "bad_target"),
    "no_host": (post(host=None), "bad_host"),
    "two_hosts": (post("host: attacker.example"), "bad_host"),
    "host_with_userinfo": (post(host="localhost@attacker.example"), "bad_host"),
    "rebound_host": (post(host="attacker.example"), "wrong_host"),
    "cross_origin": (post("origin: https://attacker.example"), "cross_origin"),
    "null_origin": (post("origin: null"), "cross_origin"),
    "cross_site_fetch": (post("sec-fetch-site: cross-site"), "cross_origin"),
    "form": (post(kind="application/x-www-form-urlencoded"), "bad_content_type"),
    "plain_text": (post(kind="text/plain"), "bad_content_type"),
    "other_path": (post(target="/v1/files"), "no_such_path"),
    "batches": (post(target="/v1/messages/batches"), "no_such_path"),
    "dot_segments": (post(target="/v1/models/../../admin", method="GET", body=b"", length=False), "no_such_path"),
    "encoded_slash": (post(target="/v1/models/%2e%2e%2fadmin", method="GET", body=b"", length=False), "no_such_path"),
    "double_slash_path": (post(target="/v1//messages"), "no_such_path"),
    "wrong_method": (post(method="PUT"), "wrong_method"),
    "post_healthz": (post(target="/healthz"), "wrong_method"),
    "put_healthz": (post(target="/healthz", method="PUT"), "wrong_method"),
    "delete_healthz": (post(target="/healthz", method="DELETE", body=b"", length=False), "wrong_method"),
    "options_healthz": (post(target="/healthz", method="OPTIONS", body=b"", length=False), "wrong_method"),
    "post_metrics": (post(target="/metrics"), "wrong_method"),
    "healthz_line_feed": (post(target="/healthz%0a", method="GET", body=b"", length=False), "no_such_path"),
    "query_injection": (post(target="/v1/messages?x=$(id)"), "bad_query"),
    "chosen_policy": (post("x-streamguard-policy: off"), "unknown_policy"),
    # Credentials and headers
    "no_key": (post().replace(f"x-api-key: {KEY}\r\n".encode(), b""), "no_key"),
    "two_keys": (post("x-api-key: other"), "bad_header_value"),
    "forwarded_header_not_ascii": (post("anthropic-version: 2023\xa006"), "bad_header_value"),
    # Sizes
    "head_too_large": (post(*(f"x-{number}: {'v' * 1000}" for number in range(12))), "head_too_large"),
    "endless_line": (b"POST /" + b"a" * 9000, "target_too_long"),
    "long_target": (post(target="/v1/messages?a=" + "b" * 4000), "target_too_long"),
    "many_headers": (post(*(f"x-{number}: v" for number in range(60))), "too_many_headers"),
    "body_too_large": (post("content-length: 33554433", length=False), "body_too_large"),
    "chunks_too_large": (
        post("transfer-encoding: chunked", length=False, body=b"".join([chunk(bytes(30_000))] * 3)),
        "body_too_large",
    ),
    # Compression
    "gzip_bomb": (post("content-encoding: gzip", body=BOMB_BYTES), "body_too_large"),
    "gzip_cut": (post("content-encoding: gzip", body=gzip.compress(BODY)[:-9]), "bad_compression"),
    "gzip_broken": (post("content-encoding: gzip", body=b"\x1f\x8b" + BODY), "bad_compression"),
    "gzip_and_more": (post("content-encoding: gzip", body=gzip.compress(BODY) + BODY), "bad_compression"),
    "brotli": (post("content-encoding: br"), "bad_content_encoding"),
    "zstd": (post("content-encoding: zstd"), "bad_content_encoding"),
    "two_encodings": (post("content-encoding: gzip, gzip"), "bad_content_encoding"),
    # JSON that readers read differently
    "no_json": (post(body=b"{"), "bad_json"),
    "json_list": (post(body=b"[]"), "bad_json"),
    "not_utf8": (post(body=BODY.replace(b"Hi", b"\xff")), "bad_json"),
    "nan": (post(body=BODY.replace(b"100", b"NaN")), "bad_json"),
    "infinite": (post(body=BODY.replace(b"100", b"1e999")), "bad_json"),
    "endless_digits": (post(body=BODY.replace(b"100", b"1" * 5000)), "bad_json"),
    "deep_json": (post(body=BODY.replace(b'"Hi"', b"[" * 200 + b"]" * 200)), "bad_json"),
    "many_values": (post(body=BODY.replace(b'"Hi"', b"[" + b"[]," * 900 + b"[]]")), "too_many_values"),
    "two_models": (post(body=BODY.replace(b'"max_tokens"', b'"model": "dear", "max_tokens"')), "duplicate_name"),
    "two_nested_names": (post(body=BODY.replace(b'"role"', b'"role": "system", "role"')), "duplicate_name"),
    "no_model": (post(body=b'{"messages": []}'), "bad_request"),
    "odd_stream": (post(body=BODY.replace(b"true", b'"yes"')), "bad_request"),
    "tools_no_list": (post(body=BODY.replace(b'"stream"', b'"tools": {}, "stream"')), "bad_request"),
    # Slowness, and protocol tricks
    "slow_head": (b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n", "slow_head"),
    "slow_body": (post(body=BODY)[:-5], "slow_body"),
    "odd_expectation": (post("expect: 200-ok"), "bad_expectation"),
}  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One proxy for all attacks: none of them may leave anything behind for the next."""
    with served(GOOD, limits=LIMITS) as running:
        yield running


def forwarded(running: Running) -> tuple[int, int]:
    """What the upstream has seen: requests for messages, and all others."""
    return len(running.upstream.exchanges), len(running.upstream.others)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_nothing_is_forwarded(name: str, running: Running) -> None:
    """The documented status and name, a body in the provider's form, and an upstream that saw nothing."""
    request, refusal = ATTACKS[name]
    before = forwarded(running)
    status, headers, body = head_of(exchange(running.port, request, whole=False))
    assert (status, headers["x-streamguard-refused"]) == (REFUSALS[refusal][0], refusal)
    assert error_of(body)["details"] == {"streamguard": {"refused": refusal}}
    assert KEY.encode() not in body
    assert forwarded(running) == before


@pytest.mark.parametrize(
    "name", ["cl_and_te", "chunk_extension", "bare_line_feed", "trailers", "no_json", "two_models"]
)
@pytest.mark.parametrize("width", [1, 7])
def test_however_it_is_cut(name: str, width: int, running: Running) -> None:
    """The same refusal when the attack comes in small pieces."""
    request, refusal = ATTACKS[name]
    before = forwarded(running)
    status, headers, _ = head_of(exchange(running.port, request, whole=False, width=width))
    assert (status, headers["x-streamguard-refused"]) == (REFUSALS[refusal][0], refusal)
    assert forwarded(running) == before


HARMLESS = {
    "plain": post("connection: close"),
    "gzip": post("connection: close", "content-encoding: gzip", body=gzip.compress(BODY)),
    "chunked": chunked(chunk(BODY[:20]), chunk(BODY[20:])).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1),
    "own_origin": post("connection: close", "origin: http://localhost"),
    "continue": post("connection: close", "expect: 100-continue"),
    "query": post("connection: close", target="/v1/messages?beta=true"),
    "surrogate": post("connection: close", body=BODY.replace(b"Hi", b"\\ud83d")),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_attacks_are_made_of_is_fine_without_them(name: str, running: Running) -> None:
    """It is the attack that was refused: the same requests without it are answered."""
    before = forwarded(running)
    status, _, body = head_of(exchange(running.port, HARMLESS[name]).removeprefix(CONTINUE))
    assert (status, body.count(b"event: message_stop")) == (200, 1)
    assert forwarded(running) == (before[0] + 1, before[1])


def test_every_refusal_is_met() -> None:
    """The table of refusals has no line that nothing shows: the rest is shown beside the parts."""
    elsewhere = {
        "too_many_connections",
        "no_token",
        "wrong_token",
        "not_operator",
        "draining",
        "no_memory",
        "too_many_requests",
    }
    assert {refusal for _, refusal in ATTACKS.values()} | elsewhere == set(REFUSALS)


def test_a_smuggled_request_is_not_answered(running: Running) -> None:
    """After a refusal nothing more of the connection is read: one response, then the end."""
    before = forwarded(running)
    answer = exchange(running.port, ATTACKS["cl_and_te"][0] + SMUGGLED * 3)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert forwarded(running) == before


def test_a_broken_request_behind_good_ones_leaves_them_their_answers(running: Running) -> None:
    """Pipelined: the first two are answered in full, then comes the refusal, then the end."""
    before = forwarded(running)
    answer = exchange(running.port, post() + post() + b"BROKEN\r\n\r\n")
    assert [answer.count(part) for part in (b"HTTP/1.1 200", b"event: message_stop", b"HTTP/1.1 400")] == [2, 2, 1]
    assert answer.index(b"HTTP/1.1 400") > answer.rindex(b"message_stop")
    assert forwarded(running) == (before[0] + 2, before[1])


def test_a_broken_body_ends_only_its_own_request(running: Running) -> None:
    """A refusal in the middle of a body: no answer but the refusal, and the connection ends."""
    before = forwarded(running)
    answer = exchange(running.port, chunked(chunk(BODY[:20]), b"zz\r\n") + SMUGGLED)
    assert head_of(answer)[1]["x-streamguard-refused"] == "bad_chunk"
    assert answer.count(b"HTTP/1.1 ") == 1
    assert forwarded(running) == before
