//! Where the parts of an accepted head stand in it, so that whoever makes a request of it need not look for them again.

use http::HeaderName;
use smallvec::SmallVec;

use crate::http1::names::Role;

use super::Framing;

/// Fields of an ordinary head; room for more is allocated.
const FIELDS: usize = 16;

/// The parts of one head. Places count from the beginning of the bytes that the head was found at the beginning of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// How long the head is, with an empty line before it and the one that ends it; 0 as long as there is no accepted head.
    pub(crate) len: usize,
    /// How long the empty line before it is.
    pub(crate) skip: usize,
    /// Where each line ends: the place of its LF, without `skip`.
    pub(crate) lines: SmallVec<[u32; FIELDS + 4]>,
    /// There are bytes that no line may have.
    pub(crate) stray: bool,
    /// Where the method ends, without `skip`.
    pub(crate) method: usize,
    /// Where the target ends, one space behind the method, without `skip`.
    pub(crate) target: usize,
    pub(crate) http11: bool,
    pub(crate) framing: Framing,
    pub(crate) fields: SmallVec<[Field; FIELDS]>,
}

/// One field.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its name, if the table of names has it.
    pub(crate) known: Option<&'static HeaderName>,
    pub(crate) role: Role,
    /// Nobody but the service looks at it, and its line, like all others of which that is so, is `name: value` with one blank.
    pub(crate) passes: bool,
    /// Where its name and its value begin and end, the value without the white space around it, without `skip`.
    pub(crate) line: u32,
    pub(crate) colon: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            len: 0,
            skip: 0,
            lines: SmallVec::new(),
            stray: false,
            method: 0,
            target: 0,
            http11: true,
            framing: Framing::Length(0),
            fields: SmallVec::new(),
        }
    }
}

impl Parts {
    /// Forgets the head.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.stray = false;
        self.lines.clear();
        self.fields.clear();
    }
}
