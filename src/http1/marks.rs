//! Which of some bytes are of a kind, as a mask: bit 0 is the first of them.
//!
//! Every byte of a head is looked at, so this is done for sixteen at once, or for four times sixteen. What compilers make of a loop over bytes takes two to
//! four times as many instructions.

use std::array;

use wide::u8x16;

/// As many bytes as are looked at together.
pub(crate) const WIDTH: usize = 16;

/// As many are looked at together where most of them are of no kind.
pub(crate) const WIDE: usize = 4 * WIDTH;

/// Kinds of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// LF.
    pub(crate) line_feeds: u64,
    /// Bytes that no line may have (RFC 9110, section 5.5), and CR and LF; perhaps a tab right before an LF.
    pub(crate) controls: u64,
}

/// Lines and what may not stand in them; `None` where there is neither.
pub(crate) fn marks(bytes: &[u8; WIDE]) -> Option<Marks> {
    let (parts, _) = bytes.as_chunks::<WIDTH>();
    let parts: [u8x16; 4] = array::from_fn(|n| u8x16::new(parts[n]));
    let [a, b, c, d] = parts.map(|part| low(part) | part.simd_eq(u8x16::splat(0x7f)));
    if ((a | b) | (c | d)).to_bitmask() == 0 {
        return None;
    }
    let which = |byte: u8| mask(parts.map(|part| part.simd_eq(u8x16::splat(byte))));
    let (line_feeds, mut controls) = (which(b'\n'), mask([a, b, c, d]));
    // Mostly these are the ends of lines, and then nobody need look for tabs, which may stand in a line. (One right before an LF may so
    // count as a control: that LF is refused anyway, since it follows no CR.)
    if controls & !(line_feeds | line_feeds >> 1) != 0 {
        controls &= !which(b'\t');
    }
    Some(Marks { line_feeds, controls })
}

fn mask(parts: [u8x16; 4]) -> u64 {
    parts.into_iter().rev().fold(0, |mask, part| mask << WIDTH | u64::from(part.to_bitmask()))
}

fn low(bytes: u8x16) -> u8x16 {
    // The smaller of it and 0x1f is itself: there is no such comparison of unsigned bytes.
    bytes.min(u8x16::splat(0x1f)).simd_eq(bytes)
}

/// Which of them are this one.
pub(crate) fn equal(bytes: &[u8; WIDTH], byte: u8) -> u32 {
    u8x16::new(*bytes).simd_eq(u8x16::splat(byte)).to_bitmask()
}

/// Whether all are printable ASCII without `"` and `\`, as text in JSON may have them unescaped.
pub(crate) fn are_plain(bytes: &[u8; WIDTH]) -> bool {
    let bytes = u8x16::new(*bytes);
    let outside = low(bytes) | bytes.max(u8x16::splat(0x7f)).simd_eq(bytes);
    let special = bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\'));
    (outside | special).to_bitmask() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mask, made one by one.
    fn mask<const N: usize>(bytes: &[u8; N], is: impl Fn(u8) -> bool) -> u64 {
        bytes.iter().enumerate().fold(0, |mask, (at, b)| mask | u64::from(is(*b)) << at)
    }

    #[test]
    fn many_at_once_are_judged_as_one_by_one() {
        let is_control = |b: u8| (b < b' ' && b != b'\t') || b == 0x7f;
        for b in 0..=255u8 {
            for at in 0..WIDE {
                for mut bytes in [
                    [b'~'; WIDE],
                    *b"abc\r\n~\x01\t \x80\xff!zyxwvut\r\n\0\x7f\x1f \x80xxxxxxxxxx\t\nxxxxxxxxxxxxxxxxxxxxxxxxx\n",
                ] {
                    bytes[at] = b;
                    let (line_feeds, controls) = (mask(&bytes, |b| b == b'\n'), mask(&bytes, is_control));
                    assert_eq!(marks(&bytes).unwrap_or_default(), Marks { line_feeds, controls }, "{b} at {at}");
                }
            }
            for at in 0..WIDTH {
                let mut bytes = *b"abc\r\n~\x01\t \x80\xff!zyxw";
                bytes[at] = b;
                assert_eq!(u64::from(equal(&bytes, b)), mask(&bytes, |other| other == b), "{b} at {at}");
                let mut bytes = *b"plain text, here";
                bytes[at] = b;
                assert_eq!(are_plain(&bytes), matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'), "{b} at {at}");
            }
        }
        assert_eq!(marks(&[b'\x80'; WIDE]), None);
    }
}
