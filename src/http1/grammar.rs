//! Which bytes may stand where in a head (RFC 9110, section 5; RFC 3986).

use std::ops::Range;

/// `tchar` (RFC 9110, section 5.6.2).
pub(crate) const fn is_token(b: u8) -> bool {
    TABLE[b as usize] & TOKEN != 0
}

/// `field-vchar`, SP and HTAB (RFC 9110, section 5.5).
pub(crate) const fn is_value(b: u8) -> bool {
    TABLE[b as usize] & VALUE != 0
}

/// Whether all of `text` may stand in a field's value. Without a way out in between, so that it is done for many bytes at
/// once: most of a head is values.
pub(crate) fn is_all_value(text: &[u8]) -> bool {
    !text.iter().fold(false, |bad, &b| bad | ((b < b' ') & (b != b'\t')) | (b == 0x7f))
}

/// The place of a value in `block`, without the blanks around it (RFC 9110, section 5.5).
pub(crate) fn trimmed(block: &[u8], mut value: Range<usize>) -> Range<usize> {
    let is_blank = |b: u8| matches!(b, b' ' | b'\t');
    while !value.is_empty() && is_blank(block[value.start]) {
        value.start += 1;
    }
    while !value.is_empty() && is_blank(block[value.end - 1]) {
        value.end -= 1;
    }
    value
}

/// A byte that the path of a request target may have: RFC 3986, what browsers leave unescaped beside it, and UTF-8.
pub(crate) const fn is_path(b: u8) -> bool {
    TABLE[b as usize] & PATH != 0
}

/// The same for the query.
pub(crate) const fn is_query(b: u8) -> bool {
    TABLE[b as usize] & QUERY != 0
}

/// `unreserved` (RFC 3986, section 2.3): what a host may have here. Names of hosts are not written with escapes or delimiters.
pub(crate) const fn is_host_name(b: u8) -> bool {
    TABLE[b as usize] & HOST != 0
}

// Classes of bytes in `TABLE`.
const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const PATH: u8 = 4;
const QUERY: u8 = 8;
const HOST: u8 = 16;

const TABLE: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        let special = matches!(
            c,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        if c.is_ascii_alphanumeric() || special {
            table[b] |= TOKEN;
        }
        if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~') {
            table[b] |= HOST;
        }
        if c == b'\t' || (c >= b' ' && c != 0x7f) {
            table[b] |= VALUE;
        }
        if c > b' ' && !matches!(c, b'#' | b'<' | b'>' | b'`' | 0x7f) {
            table[b] |= PATH;
        }
        if c > b' ' && !matches!(c, b'#' | b'<' | b'>' | b'"' | 0x7f) {
            table[b] |= QUERY;
        }
        b += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bytes_are_judged_like_one() {
        for length in [1, 15, 16, 17, 64, 100] {
            for at in 0..length {
                for b in 0..=255 {
                    let mut text = vec![b'v'; length];
                    text[at] = b;
                    assert_eq!(is_all_value(&text), is_value(b), "{b} at {at} of {length}");
                }
            }
        }
        assert!(is_all_value(b""));
    }
}
