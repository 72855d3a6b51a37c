//! Which of sixteen bytes are of a kind, as a mask: bit 0 is the first of them.
//!
//! Every byte of a head is looked at, so this is done for sixteen at once. What compilers make of a loop over bytes takes two to
//! four times as many instructions.

use wide::u8x16;

/// As many bytes as are looked at together.
pub(crate) const WIDTH: usize = 16;

/// Kinds of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// LF.
    pub(crate) line_feeds: u32,
    /// Bytes that no line may have (RFC 9110, section 5.5), and CR and LF.
    pub(crate) controls: u32,
}

/// Lines and what may not stand in them.
pub(crate) fn marks(bytes: &[u8; WIDTH]) -> Marks {
    let bytes = u8x16::new(*bytes);
    let line_feeds = bytes.simd_eq(u8x16::splat(b'\n'));
    Marks { line_feeds: line_feeds.to_bitmask(), controls: controls(bytes).to_bitmask() }
}

/// How many bytes at the beginning of `text`, in steps of two widths, are no controls.
pub(crate) fn clean(text: &[u8]) -> usize {
    let (steps, _) = text.as_chunks::<{ 2 * WIDTH }>();
    let is_clean = |step: &[u8; 2 * WIDTH]| {
        let (halves, _) = step.as_chunks::<WIDTH>();
        (controls(u8x16::new(halves[0])) | controls(u8x16::new(halves[1]))).to_bitmask() == 0
    };
    steps.iter().take_while(|step| is_clean(step)).count() * 2 * WIDTH
}

fn controls(bytes: u8x16) -> u8x16 {
    // The smaller of it and 0x1f is itself: there is no such comparison of unsigned bytes.
    let low = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes) & !bytes.simd_eq(u8x16::splat(b'\t'));
    low | bytes.simd_eq(u8x16::splat(0x7f))
}

/// Which of them are this one.
pub(crate) fn equal(bytes: &[u8; WIDTH], byte: u8) -> u32 {
    u8x16::new(*bytes).simd_eq(u8x16::splat(byte)).to_bitmask()
}

/// Whether all are printable ASCII without `"` and `\`, as text in JSON may have them unescaped.
pub(crate) fn are_plain(bytes: &[u8; WIDTH]) -> bool {
    let bytes = u8x16::new(*bytes);
    let low = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    let outside = low | bytes.max(u8x16::splat(0x7f)).simd_eq(bytes);
    let special = bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\'));
    (outside | special).to_bitmask() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mask, made one by one.
    fn mask(bytes: &[u8; WIDTH], is: impl Fn(u8) -> bool) -> u32 {
        bytes.iter().enumerate().fold(0, |mask, (at, b)| mask | u32::from(is(*b)) << at)
    }

    #[test]
    fn many_at_once_are_judged_as_one_by_one() {
        for b in 0..=255u8 {
            for at in 0..WIDTH {
                let mut bytes = *b"abc\r\n~\x01\t \x80\xff!zyxw";
                bytes[at] = b;
                let controls = mask(&bytes, |b| (b < b' ' && b != b'\t') || b == 0x7f);
                let line_feeds = mask(&bytes, |b| b == b'\n');
                assert_eq!(marks(&bytes), Marks { line_feeds, controls }, "{b} at {at}");
                assert_eq!(equal(&bytes, b), mask(&bytes, |other| other == b), "{b} at {at}");
                let mut bytes = *b"plain text, here";
                bytes[at] = b;
                assert_eq!(are_plain(&bytes), matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'), "{b} at {at}");
            }
        }
        for at in 0..96 {
            let mut text = [b'a'; 96];
            text[at] = 0;
            assert_eq!(clean(&text), at / 32 * 32);
        }
        assert_eq!((clean(&[b'\t'; 70]), clean(b"short")), (64, 0));
        let text = b"a\tb\r\n\0\x7f\x1f \x80xxxxx\n";
        assert_eq!(marks(text), Marks { line_feeds: 0x8010, controls: 0x80f8 });
    }
}
