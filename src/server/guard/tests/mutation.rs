//! Anything at all, and valid requests bent a little: whatever passes is read in one way by every reader.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::*;
use super::support::{Flag, LIMITS, Script, cut, drain, pass, split_stand_in};
use crate::http1::MAX_FIELDS;

const REQUESTS: [&[u8]; 8] = [
    b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"\r\nGET /b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET http://a.example/c HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /e HTTP/1.1\r\nContent-Length: 26\r\nHost: a.example\r\n\r\nGET /f HTTP/1.1\r\nHost: b\r\n\r",
    b"POST /g HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /h HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a.example\r\n\r\nA;x=y\r\n0123456789\r\n1\r\n!\r\n00\r\nT: v\r\nU:\r\n\r\n",
    b"GET /i HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
];

const PIECES: [&[u8]; 26] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\0",
    b"\x0b",
    b"\x0c",
    b"\x85",
    b"\xa0",
    b"0",
    b"1",
    b"5",
    b"f",
    b"Content-Length: 5\r\n",
    b"content-length:0\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: identity\r\n",
    b"Host: a.example\r\n",
    b"Content-Length: 31\r\n",
    b"0\r\n\r\n",
];

#[derive(Debug, Clone)]
enum Change {
    Insert(Index, &'static [u8]),
    /// At the start of a line.
    InsertLine(Index, &'static [u8]),
    Replace(Index, &'static [u8]),
    Delete(Index, usize),
    Repeat(Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let piece = || select(&PIECES[..]);
    prop_oneof![
        (any::<Index>(), piece()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<Index>(), piece()).prop_map(|(at, piece)| Change::InsertLine(at, piece)),
        (any::<Index>(), piece()).prop_map(|(at, piece)| Change::Replace(at, piece)),
        (any::<Index>(), 1..4usize).prop_map(|(at, len)| Change::Delete(at, len)),
        (any::<Index>(), 1..30usize).prop_map(|(at, len)| Change::Repeat(at, len)),
    ]
}

pub(super) fn bent() -> impl Strategy<Value = Vec<u8>> {
    (vec(select(&REQUESTS[..]), 1..4), vec(change(), 0..4)).prop_map(|(requests, changes)| {
        let mut data = requests.concat();
        for change in changes {
            let place = |at: Index| at.index(data.len() + 1);
            match change {
                Change::Insert(at, piece) => drop(data.splice(place(at)..place(at), piece.iter().copied())),
                Change::InsertLine(at, piece) => {
                    let starts: Vec<_> = (1..=data.len()).filter(|&i| data[i - 1] == b'\n').collect();
                    let at = if starts.is_empty() { 0 } else { *at.get(&starts) };
                    data.splice(at..at, piece.iter().copied());
                }
                Change::Replace(at, piece) => {
                    let at = place(at);
                    data.splice(at..(at + 1).min(data.len()), piece.iter().copied());
                }
                Change::Delete(at, len) => drop(data.drain(place(at)..(place(at) + len).min(data.len()))),
                Change::Repeat(at, len) => {
                    let part = data[place(at)..(place(at) + len).min(data.len())].to_vec();
                    data.splice(place(at)..place(at), part);
                }
            }
        }
        data
    })
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..100),
        vec(select(&PIECES[..]), 0..30).prop_map(|pieces| pieces.concat()),
        bent(),
        // Around the limits.
        (bent(), 450..600usize).prop_map(|(data, len)| data.into_iter().cycle().take(len).collect::<Vec<_>>()),
        (0..600usize)
            .prop_map(|len| [b"GET /a HTTP/1.1\r\nHost: a\r\nX:".as_slice(), &vec![b'x'; len], b"\n\r\n\r\n"].concat()),
    ]
}

/// A reader as they are found behind a gateway: where two of them could differ, `lenient` differs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    /// `Content-Length` beats `Transfer-Encoding`, the last of several beats the first.
    pub(super) length_wins: bool,
    /// Chunk sizes are trimmed, and read up to the first byte that is no digit.
    pub(super) lenient: bool,
}

/// One request as a [`Reader`] reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) head_end: usize,
    pub(super) target: String,
    /// `None`: the data ends inside the body.
    pub(super) body: Option<Vec<u8>>,
    pub(super) last: bool,
}

impl Reader {
    /// The requests in `data`; an error when it ends inside a head or cannot be read.
    pub(super) fn read(self, data: &[u8]) -> Result<Vec<Read>, String> {
        let mut requests = Vec::new();
        let mut at = 0;
        loop {
            while matches!(data.get(at), Some(b'\r' | b'\n')) {
                at += 1;
            }
            if at == data.len() {
                return Ok(requests);
            }
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut request = httparse::Request::new(&mut fields);
            match request.parse(&data[at..]).map_err(|e| e.to_string())? {
                httparse::Status::Complete(len) => at += len,
                httparse::Status::Partial => return Err("ends inside a head".to_owned()),
            }
            http::Method::from_bytes(request.method.unwrap().as_bytes()).map_err(|e| e.to_string())?;
            let target = request.path.unwrap().to_owned();
            http::Uri::try_from(target.as_str()).map_err(|e| e.to_string())?;
            let named = |name: &'static str| {
                let fields = request.headers.iter().filter(move |f| f.name.eq_ignore_ascii_case(name));
                fields.map(|f| String::from_utf8_lossy(f.value).to_ascii_lowercase())
            };
            let chunked = named("transfer-encoding").any(|value| value.contains("chunked"));
            let mut lengths = named("content-length");
            let length = if self.length_wins { lengths.next_back() } else { lengths.next() };
            let says = |option: &str| named("connection").any(|value| value.split(',').any(|one| one.trim() == option));
            let last = says("close") || (request.version == Some(0) && !says("keep-alive"));
            let head_end = at;
            let body = match length {
                Some(length) if self.length_wins || !chunked => {
                    let length = length.parse::<usize>().map_err(|e| e.to_string())?;
                    let body = data.get(at..at.saturating_add(length));
                    at += body.map_or(0, <[u8]>::len);
                    body.map(<[u8]>::to_vec)
                }
                _ if chunked => self.chunks(data, &mut at)?,
                _ => Some(Vec::new()),
            };
            let over = body.is_none();
            requests.push(Read { head_end, target, body, last });
            if over {
                return Ok(requests);
            }
        }
    }

    fn chunks(self, data: &[u8], at: &mut usize) -> Result<Option<Vec<u8>>, String> {
        let mut body = Vec::new();
        let line = |at: &mut usize| {
            let len = data[*at..].iter().position(|&b| b == b'\n')?;
            let line = &data[*at..*at + len];
            *at += len + 1;
            Some(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned())
        };
        loop {
            let Some(size) = line(at) else { return Ok(None) };
            let size = size.split(';').next().unwrap_or_default();
            let digits = if self.lenient {
                let size = size.trim();
                &size[..size.bytes().position(|b| !b.is_ascii_hexdigit()).unwrap_or(size.len())]
            } else {
                size
            };
            let size = usize::from_str_radix(digits, 16).map_err(|e| e.to_string())?;
            if size == 0 {
                loop {
                    match line(at) {
                        None => return Ok(None),
                        Some(trailer) if trailer.is_empty() => return Ok(Some(body)),
                        Some(_) => {}
                    }
                }
            }
            let Some(chunk) = data.get(*at..at.saturating_add(size)) else { return Ok(None) };
            body.extend_from_slice(chunk);
            *at += size;
            match line(at) {
                None => return Ok(None),
                Some(end) if end.is_empty() => {}
                Some(more) => return Err(format!("{more:?} behind a chunk")),
            }
        }
    }
}

/// Feeds byte by byte and notes where the guard saw the heads end.
fn heads(data: &[u8]) -> (Vec<usize>, Vec<u8>) {
    let flag = Flag::default();
    let mut guard = Guard::new(Script { reads: [].into(), ends: false }, LIMITS, flag.clone());
    let (mut ends, mut passed) = (Vec::new(), Vec::new());
    for byte in data {
        guard.stream.reads.push_back(vec![*byte]);
        let seen = drain(&mut guard, 8192);
        passed.extend(seen.bytes);
        if flag.heads.take() > 0 {
            ends.push(passed.len());
        }
    }
    if split_stand_in(&passed).1.is_some() {
        ends.pop();
    }
    (ends, passed)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn it_does_not_matter_how_the_bytes_were_split(
        data in anything(), cuts in vec(any::<usize>(), 0..12), room in select(vec![1usize, 2, 17, 300, 8192])
    ) {
        let whole = pass([data.clone()], 8192);
        prop_assert_eq!(&pass(cut(&data, &cuts), room), &whole);
        prop_assert_eq!(&pass(data.chunks(1).map(<[u8]>::to_vec), room), &whole);
    }

    #[test]
    fn what_passes_is_a_prefix_and_at_most_one_stand_in(data in anything()) {
        let seen = pass([data.clone()], 8192);
        let (passed, refusal) = split_stand_in(&seen.bytes);
        prop_assert!(data.starts_with(passed));
        // After a stand-in the stream stays open, silent, for the answer; otherwise it has ended.
        prop_assert_eq!(seen.ended, refusal.is_none());
        prop_assert!(refusal.is_none() || seen.unread);
    }

    #[test]
    fn every_reader_finds_the_same_requests_in_what_passes(data in anything()) {
        let (ends, bytes) = heads(&data);
        let (passed, _) = split_stand_in(&bytes);
        let mut readings = Vec::new();
        for (length_wins, lenient) in [(false, false), (false, true), (true, false), (true, true)] {
            let reading = Reader { length_wins, lenient }.read(passed);
            prop_assert!(reading.is_ok(), "{:?}: {}", reading, passed.escape_ascii());
            readings.push(reading.unwrap());
        }
        prop_assert!(readings.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", readings);
        let found: Vec<_> = readings[0].iter().map(|request| request.head_end).collect();
        prop_assert_eq!(found, ends);
        prop_assert!(readings[0].iter().all(|request| !request.target.starts_with("wxgate:")));
    }
}
