//! RESP 2: a command is an array of strings; an answer is one of few kinds.

/// One command.
pub(super) struct Arguments(pub(super) Vec<Vec<u8>>);

impl Arguments {
    /// Takes the first whole command off the front of `come`.
    pub(super) fn take(come: &mut Vec<u8>) -> Option<Self> {
        let mut at = 0;
        let count = number(come, &mut at, b'*')?;
        let mut arguments = Vec::with_capacity(count);
        for _ in 0..count {
            let length = number(come, &mut at, b'$')?;
            arguments.push(come.get(at..at + length)?.to_owned());
            // Behind it stands a line's end.
            at += length + 2;
        }
        if at > come.len() {
            return None;
        }
        come.drain(..at);
        Some(Self(arguments))
    }
}

/// The number of a line that begins with `kind`.
fn number(come: &[u8], at: &mut usize, kind: u8) -> Option<usize> {
    let rest = come.get(*at..)?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    assert_eq!(rest[0], kind, "our client library speaks otherwise");
    *at += end + 2;
    Some(std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap())
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Nil,
    Done,
    Number(i64),
    Text(Vec<u8>),
    List(Vec<Reply>),
    Fault(String),
}

impl Reply {
    pub(super) fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn maybe(text: Option<Vec<u8>>) -> Self {
        text.map_or(Self::Nil, Self::Text)
    }

    pub(super) fn count(n: usize) -> Self {
        Self::Number(i64::try_from(n).unwrap())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => out.extend_from_slice(b"$-1\r\n"),
            Self::Done => out.extend_from_slice(b"+OK\r\n"),
            Self::Number(n) => out.extend_from_slice(format!(":{n}\r\n").as_bytes()),
            Self::Text(text) => {
                out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Self::List(items) => {
                out.extend_from_slice(format!("*{}\r\n", items.len()).as_bytes());
                items.iter().for_each(|item| item.write(out));
            }
            Self::Fault(what) => out.extend_from_slice(format!("-{what}\r\n").as_bytes()),
        }
    }
}
