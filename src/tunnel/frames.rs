//! Where WebSocket frames begin and end (RFC 6455, section 5.2), and nothing of what is in them.

/// Longest frame header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// The opcode of a close frame.
const CLOSE: u8 = 8;

/// Follows one direction of a WebSocket. It never holds payload, so the length that a frame announces costs nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames {
    header: [u8; MAX_HEADER],
    have: usize,
    payload: u64,
    closed: bool,
}

impl Frames {
    /// These bytes have gone by.
    pub(super) fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            data = &data[self.step(data)..];
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) const fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Whether a close frame has gone by: nothing may be sent behind it.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many bytes of `data` belong to the frame that has begun; all of them when it does not end there.
    pub(super) fn rest_of_frame(&self, data: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut taken = 0;
        while taken < data.len() && !ahead.at_boundary() {
            taken += ahead.step(&data[taken..]);
        }
        taken
    }

    /// Takes at least one byte of `data`, and none beyond the frame.
    fn step(&mut self, data: &[u8]) -> usize {
        if self.payload > 0 {
            let take = usize::try_from(self.payload).map_or(data.len(), |payload| payload.min(data.len()));
            self.payload -= take as u64;
            return take;
        }
        self.header[self.have] = data[0];
        self.have += 1;
        if self.have >= 2 && self.have == self.header_length() {
            self.closed |= self.header[0] & 0x0f == CLOSE;
            self.payload = self.payload_length();
            self.have = 0;
        }
        1
    }

    fn header_length(&self) -> usize {
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.header[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_length(&self) -> u64 {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        match self.header[1] & 0x7f {
            126 => number(&self.header[2..4]),
            127 => number(&self.header[2..10]),
            short => u64::from(short),
        }
    }
}

/// A close frame of a server: not masked.
pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(123)];
    let mut frame = vec![0x80 | CLOSE, u8::try_from(2 + reason.len()).unwrap_or(2)];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame and its bytes, as a server or (masked) a client writes it.
    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..=65535 => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend_from_slice(&[1, 2, 3, 4]);
        }
        bytes.resize(bytes.len() + length, 0xff);
        bytes
    }

    #[test]
    fn a_close_frame_is_seen_and_made() {
        let mut frames = Frames::default();
        frames.feed(&frame(1, 3, false));
        assert!(!frames.is_closed());
        let close = close(1001, "draining");
        assert_eq!(close, b"\x88\x0a\x03\xe9draining");
        frames.feed(&close);
        assert!(frames.is_closed() && frames.at_boundary());
    }

    #[test]
    fn a_frame_that_announces_everything_costs_nothing() {
        let mut frames = Frames::default();
        frames.feed(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.payload, u64::MAX);
        frames.feed(&[0; 1000]);
        assert_eq!(frames.rest_of_frame(&[0; 10]), 10);
        assert!(!frames.at_boundary());
    }

    proptest! {
        /// However the bytes are cut, boundaries are found exactly where frames end.
        #[test]
        fn boundaries_are_where_frames_end(
            shapes in proptest::collection::vec(
                (0u8..3, prop_oneof![0usize..130, 65_530usize..65_540, Just(70_000usize)], any::<bool>()), 1..6
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (opcode, length, masked) in shapes {
                bytes.extend(frame(opcode, length, masked));
                ends.push(bytes.len());
            }
            let cut = cut.index(bytes.len() + 1);
            let mut frames = Frames::default();
            frames.feed(&bytes[..cut]);
            prop_assert_eq!(frames.at_boundary(), ends.contains(&cut));
            let next = ends.into_iter().find(|end| *end >= cut).unwrap();
            prop_assert_eq!(frames.rest_of_frame(&bytes[cut..]), next - cut);
            frames.feed(&bytes[cut..]);
            prop_assert!(frames.at_boundary() && !frames.is_closed());
        }
    }
}
