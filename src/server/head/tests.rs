//! Heads that every parser reads alike, and heads that some do not. Numbers are rows of the list of bad days.

use proptest::prelude::*;

use super::*;

const MAX_URI: usize = 128;

fn read(head: &[u8]) -> Result<Framing, Refusal> {
    let mut parts = Parts::default();
    match find(head, &mut 0, MAX_URI, &mut parts)? {
        Some(len) if len == head.len() => Ok(parts.framing),
        other => panic!("{:?} ends at {other:?}, not at {}", String::from_utf8_lossy(head), head.len()),
    }
}

fn found(head: &[u8]) -> Result<Option<usize>, Refusal> {
    find(head, &mut 0, MAX_URI, &mut Parts::default())
}

/// A GET with these lines after `Host`.
fn with(lines: &[u8]) -> Vec<u8> {
    [b"POST /api HTTP/1.1\r\nHost: a.example\r\n".as_slice(), lines, b"\r\n"].concat()
}

/// A head with this request line.
fn line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: a.example\r\n\r\n"].concat()
}

#[track_caller]
fn refused(heads: &[&[u8]], as_what: Refusal) {
    for head in heads {
        assert_eq!(read(head), Err(as_what), "{:?}", String::from_utf8_lossy(head));
    }
}

#[track_caller]
fn lines_refused(lines: &[&[u8]], as_what: Refusal) {
    for line in lines {
        refused(&[&with(line)], as_what);
    }
}

#[test]
fn what_clients_send_is_accepted() {
    let wx_request = b"POST /api/orders?page=1&tag=%E4%B8%AD HTTP/1.1\r\nHost: api.example.com\r\nConnection: keep-alive\r\n\
        Content-Length: 17\r\ncharset: utf-8\r\ncontent-type: application/json\r\nAuthorization: Bearer eyJ.a-b_c.d~e\r\n\
        User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) MicroMessenger/8.0.50(0x1800323d) NetType/WIFI\r\n\
        Accept-Encoding: gzip,compress,br,deflate\r\n\
        Referer: https://servicewechat.com/wx0123456789abcdef/0/page-frame.html\r\n\r\n";
    let accepted: &[(&[u8], Framing)] = &[
        (wx_request, Framing::Length(17)),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
        (b"GET / HTTP/1.0\r\n\r\n", Framing::Length(0)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUPGRADE: h2c\r\nContent-Length: 0\r\n\r\n", Framing::Upgrade),
        (b"GET / HTTP/1.0\r\nUpgrade: h2c\r\n\r\n", Framing::Length(0)),
        (b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n", Framing::Length(3)),
        (b"GET http://a.example/x?y HTTP/1.1\r\nHost: A.EXAMPLE\r\n\r\n", Framing::Length(0)),
        (b"GET HTTPS://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", Framing::Length(0)),
        (b"GET http://a.example:80?y HTTP/1.1\r\nHost: a.example:80\r\n\r\n", Framing::Length(0)),
        (b"GET http://a.example/ HTTP/1.0\r\n\r\n", Framing::Length(0)),
        (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", Framing::Length(0)),
        (b"GET / HTTP/1.1\r\nHost: [::ffff:10.0.0.1]:8443\r\n\r\n", Framing::Length(0)),
        (b"GET / HTTP/1.1\r\nHost: 10.0.0.1:65535\r\n\r\n", Framing::Length(0)),
        (b"GET / HTTP/1.1\r\nHost: under_score-d.example.\r\n\r\n", Framing::Length(0)),
        (b"GET / HTTP/1.1\r\nHOST:a\r\nX-EMPTY:\r\nx-blank: \t \r\n\r\n", Framing::Length(0)),
        (b"GET / HTTP/1.1\r\nhost:\t a \t\r\nx: caf\xc3\xa9 \xe4\xb8\xad \xff\x80\r\n\r\n", Framing::Length(0)),
        ("GET /?name=中文&q=|{}[]^`\\ HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(), Framing::Length(0)),
        ("GET /中/{\"a\"}|~!$&'()*+,=:@ HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(), Framing::Length(0)),
        (b"GET //double?a?b//c HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
        (b"OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
        (b"M-SEARCH!#$%&'*+.^_`|~9 / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
        (b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n", Framing::Length(0)),
        (b"POST / HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH:\t007 \r\n\r\n", Framing::Length(7)),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n",
            Framing::Length(999_999_999_999_999_999),
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Framing::Chunked),
        (b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:CHUNKED \r\nExpect: 100-continue\r\n\r\n", Framing::Chunked),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n",
            Framing::Length(2),
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Content-Length: 5\r\nTransfer-Encodings: x\r\nX-Host: b\r\n\r\n",
            Framing::Length(0),
        ),
    ];
    for (head, framing) in accepted {
        assert_eq!(read(head), Ok(*framing), "{:?}", String::from_utf8_lossy(head));
    }
}

/// Row 13, and 14 as far as the head goes.
#[test]
fn length_and_transfer_coding_together_are_refused() {
    lines_refused(
        &[
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\nX: y\r\ncontent-length: 0\r\n",
        ],
        Refusal::InvalidRequest,
    );
}

/// Rows 15, 16, 17.
#[test]
fn a_length_is_one_plain_number() {
    lines_refused(
        &[
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: 5\r\ncontent-length: 5\r\n",
            b"Content-Length: 0\r\nContent-Length: 0\r\n",
            b"Content-Length: 5, 6\r\n",
            b"Content-Length: 5, 5\r\n",
            b"Content-Length: 5,\r\n",
        ],
        Refusal::InvalidRequest,
    );
    for bad in [
        "+5",
        "-5",
        "0x5",
        "5_0",
        "5.0",
        "",
        "\"\"",
        "\"5\"",
        "5 0",
        "5\t0",
        "5e1",
        "5;a",
        "\u{665}",
        "1\u{a0}",
        "five",
        "18446744073709551616",
        "18446744073709551615",
        "9223372036854775808",
        "0000000000000000005",
    ] {
        lines_refused(&[format!("Content-Length: {bad}\r\n").as_bytes()], Refusal::InvalidRequest);
    }
}

/// Row 18, and the names that fold to the framing fields behind CGI.
#[test]
fn a_framing_field_has_its_exact_name() {
    lines_refused(
        &[
            b"Content-Length : 5\r\n",
            b"Content-Length\t: 5\r\n",
            b" Content-Length: 5\r\n",
            b"Content-Length\0: 5\r\n",
            b"Content-Length\xa0: 5\r\n",
            b"Content_Length: 5\r\n",
            b"content.length: 5\r\n",
            b"CONTENT~LENGTH: 5\r\n",
            b"Transfer-Encoding : chunked\r\n",
            b"Transfer_Encoding: chunked\r\n",
            b"transfer.encoding: identity\r\n",
        ],
        Refusal::InvalidRequest,
    );
}

/// Row 19.
#[test]
fn a_transfer_coding_is_chunked_and_nothing_else() {
    lines_refused(
        &[
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding: chunkedx\r\n",
            b"Transfer-Encoding: chunk\r\n",
            b"Transfer-Encoding: identity\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Transfer-Encoding: chunked, chunked\r\n",
            b"Transfer-Encoding: \"chunked\"\r\n",
            b"Transfer-Encoding: 'chunked'\r\n",
            b"Transfer-Encoding: chunked;q=1\r\n",
            b"Transfer-Encoding: ,chunked\r\n",
            b"Transfer-Encoding: chunked,\r\n",
            b"Transfer-Encoding:\r\n",
        ],
        Refusal::NotImplemented,
    );
}

/// Row 20.
#[test]
fn a_transfer_coding_has_no_odd_space() {
    lines_refused(
        &[
            b"Transfer-Encoding: \x0bchunked\r\n",
            b"Transfer-Encoding: chunked\x0c\r\n",
            b"Transfer-Encoding: chunked\0\r\n",
            b"Transfer-Encoding:\n chunked\r\n",
            b"Transfer-Encoding\t: chunked\r\n",
            b"\x0bTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chun\rked\r\n",
        ],
        Refusal::InvalidRequest,
    );
    lines_refused(
        &[
            b"Transfer-Encoding: chunked\x85\r\n",
            b"Transfer-Encoding: \xa0chunked\r\n",
            b"Transfer-Encoding:\r\n chunked\r\n",
        ],
        Refusal::NotImplemented,
    );
}

/// Rows 21, 22. (Row 23 needs no test of its own: without either field there is no body.)
#[test]
fn a_transfer_coding_comes_once_and_not_in_http_1_0() {
    lines_refused(&[b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n"], Refusal::InvalidRequest);
    refused(&[b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"], Refusal::InvalidRequest);
}

/// Row 28.
#[test]
fn a_bare_line_end_is_refused() {
    lines_refused(
        &[b"X: y\n", b"X: y\n\r\n", b"X: y\r\r\n", b"X: y\rZ: w\r\n", b"\rX: y\r\n"],
        Refusal::InvalidRequest,
    );
    assert_eq!(found(b"\n"), Err(Refusal::InvalidRequest));
    assert_eq!(found(b"GET / HTTP/1.1\n"), Err(Refusal::InvalidRequest));
    assert_eq!(found(b"GET / HTTP/1.1\r\n\n"), Err(Refusal::InvalidRequest));
}

/// Rows 29, 30, and 10 of the identity headers.
#[test]
fn a_field_line_is_a_token_a_colon_and_a_value() {
    lines_refused(
        &[
            b"X: y\r\n folded\r\n",
            b"X: y\r\n\tfolded\r\n",
            b" X: y\r\n",
            b"X\r\n",
            b": y\r\n",
            b":\r\n",
            b"X y: z\r\n",
            b"X : y\r\n",
            b"X\t: y\r\n",
            b"X\0: y\r\n",
            b"X\xa0: y\r\n",
            b"X\x7f: y\r\n",
            b"X(y): z\r\n",
            b"X/y: z\r\n",
            b"\"X\": z\r\n",
            b"\xe4\xb8\xad: y\r\n",
            b"X: \0\r\n",
            b"X: a\x0bb\r\n",
            b"X: a\x1bb\r\n",
            b"X: a\x7fb\r\n",
        ],
        Refusal::InvalidRequest,
    );
}

/// Row 33.
#[test]
fn there_is_one_valid_host() {
    refused(
        &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: b\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        ],
        Refusal::InvalidRequest,
    );
    for bad in [
        "",
        " ",
        "a b",
        "a,b",
        "user@a",
        "user:pw@a",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a%2eb",
        "a:",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:+1",
        "a:123456",
        "a:65536",
        ":80",
        "[::1",
        "::1",
        "[]",
        "[:]",
        "[::1]x",
        "[::1]:",
        "[::g]",
        "[fe80::1%25eth0]",
        "[1.2.3.4]",
        "[[::1]]",
        "http://a",
        "a;b",
        "a\u{e9}",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n");
        refused(&[head.as_bytes()], Refusal::InvalidRequest);
    }
}

/// Row 34. The stand-in's own scheme is among what no client can send.
#[test]
fn an_absolute_target_names_the_host_and_nothing_else() {
    let with_host = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    for bad in [
        "http://b.example/",
        "http://a.example:80/",
        "http://a.example.evil/",
        "http://user@a.example/",
        "http:///",
        "http://",
        "http://a.example\\/",
        "http:/a.example/",
        "http:a.example",
        "ftp://a.example/",
        "a.example",
        "a.example:80",
        "api",
        "?x",
        "wxgate://refused/invalid_request",
        "WXGATE://refused/x",
        "http://a.example@b/",
        "https://[::1/",
    ] {
        refused(&[with_host(bad).as_bytes()], Refusal::InvalidRequest);
    }
    refused(&[b"GET http://a.example/ HTTP/1.1\r\n\r\n"], Refusal::InvalidRequest);
    refused(&[b"GET http://a.example/ HTTP/1.1\r\nHost: a.example:80\r\n\r\n"], Refusal::InvalidRequest);
}

/// Rows 35, 41 and 44.
#[test]
fn a_request_line_is_three_words() {
    for bad in [
        &b"GET /"[..],
        b"GET",
        b"GET / ",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET / x HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/11",
        b"GET / HTTP/1.x",
        b"GET / HTTPS/1.1",
        b"GET / HTTP/ 1.1",
        b"GET / HTTP/1.1\x0b",
        b"GE\0T / HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"\xe4 / HTTP/1.1",
        b" / HTTP/1.1",
        b"GET /a\0 HTTP/1.1",
        b"GET /a\x0bb HTTP/1.1",
        b"GET /a\x7f HTTP/1.1",
        b"GET /a\rb HTTP/1.1",
        b"GET /a#b HTTP/1.1",
        b"GET /? a HTTP/1.1",
        b"GET /<a> HTTP/1.1",
        b"GET /a` HTTP/1.1",
        b"GET /?\"a\" HTTP/1.1",
        b"GET /?<> HTTP/1.1",
        b"GET /\xc0\xaf HTTP/1.1",
        b"GET /?a=\xff HTTP/1.1",
        b"GET /\xa0 HTTP/1.1",
    ] {
        refused(&[&line(bad)], Refusal::InvalidRequest);
    }
    for other in [&b"GET / HTTP/0.9"[..], b"GET / HTTP/2.0", b"PRI * HTTP/2.0", b"GET / HTTP/1.2", b"GET / HTTP/3.0"] {
        refused(&[&line(other)], Refusal::VersionNotSupported);
    }
}

/// Row 36.
#[test]
fn tunnels_echoes_and_asterisks_are_not_done() {
    for bad in [
        &b"CONNECT a.example:443 HTTP/1.1"[..],
        b"CONNECT / HTTP/1.1",
        b"TRACE / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET * HTTP/1.1",
    ] {
        refused(&[&line(bad)], Refusal::NotImplemented);
    }
}

/// Row 46, and 108 as far as fields go. (The size of the head is the guard's.)
#[test]
fn limits_are_exact() {
    let target = |len: usize| line(format!("GET /{} HTTP/1.1", "a".repeat(len - 1)).as_bytes());
    assert_eq!(read(&target(MAX_URI)), Ok(Framing::Length(0)));
    assert_eq!(read(&target(MAX_URI + 1)), Err(Refusal::UriTooLong));
    // However high the setting: the `http` crate holds no more.
    let within = |head: &[u8]| find(head, &mut 0, usize::MAX, &mut Parts::default()).map(|len| len.is_some());
    assert_eq!(within(&target(MAX_TARGET)), Ok(true));
    assert_eq!(within(&target(MAX_TARGET + 1)), Err(Refusal::UriTooLong));
    // `Host` is one of the fields.
    assert_eq!(read(&with(&b"a: b\r\n".repeat(MAX_FIELDS - 1))), Ok(Framing::Length(0)));
    assert_eq!(read(&with(&b"a: b\r\n".repeat(MAX_FIELDS))), Err(Refusal::HeadersTooLarge));
}

#[test]
fn the_end_is_found_from_where_the_last_look_stopped() {
    let head = with(b"X: y\r\n");
    let data = [head.as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat();
    let mut scanned = 0;
    for len in 0..head.len() {
        assert_eq!(find(&data[..len], &mut scanned, MAX_URI, &mut Parts::default()), Ok(None), "{len}");
        assert!(scanned <= len);
    }
    let mut parts = Parts::default();
    assert_eq!(find(&data, &mut scanned, MAX_URI, &mut parts), Ok(Some(head.len())));
    assert_eq!((scanned, parts.lines.len(), parts.fields.len()), (0, 4, 2));
}

/// Many bytes are looked at together; wherever among them a line ends, or a byte stands that no line may have, it is found, and
/// nothing is that stands behind the head.
#[test]
fn lines_end_and_strays_stand_wherever_they_are() {
    for pad in 0..140 {
        let head = with(format!("X: {}\r\nY: z\r\n", "p".repeat(pad)).as_bytes());
        let data = [head.as_slice(), b"\x01\r\0GET\n / HTTP/1.1\r\n\r\n"].concat();
        let mut parts = Parts::default();
        assert_eq!(find(&data, &mut 0, MAX_URI, &mut parts), Ok(Some(head.len())), "{pad}");
        let ends: Vec<u32> = (0..).zip(&head).filter(|(_, b)| **b == b'\n').map(|(at, _)| at).collect();
        assert_eq!(parts.lines.as_slice(), ends, "{pad}");
        for stray in [b'\r', b'\n', 0, 0x1f, 0x7f] {
            let at = head.len() - b"p\r\nY: z\r\n\r\n".len();
            let mut head = head.clone();
            head[at] = stray;
            assert_eq!(found(&head), Err(Refusal::InvalidRequest), "{stray} {pad}");
            head[at] = b'\t';
            assert!(found(&head).is_ok());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever target is accepted, the `http` crate accepts, and finds the same authority.
    #[test]
    fn an_accepted_target_is_a_uri(target in proptest::collection::vec(proptest::sample::select(
        b"/?#%:@[]\\\"<>{}|^`~. *ah1\x80\xc3\xa9\x7f\x00".to_vec()), 1..8), form in 0..3) {
        let target = [[&b"/"[..], b"http://h", b""][form as usize], &target].concat();
        let head = [b"GET ", target.as_slice(), b" HTTP/1.0\r\n\r\n"].concat();
        if found(&head) == Ok(Some(head.len())) {
            let uri = http::Uri::try_from(target.as_slice());
            prop_assert!(uri.is_ok(), "{:?}", String::from_utf8_lossy(&target));
            let host = absolute_authority(&target).ok();
            prop_assert_eq!(uri.unwrap().authority().map(|a| a.as_str().as_bytes().to_vec()), host.map(<[u8]>::to_vec));
        }
    }
}
