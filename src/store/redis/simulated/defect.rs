//! Defects that the simulation is to find: a test that cannot fail shows nothing.

/// What is wrong with this server, or with our scripts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// A used refresh token is taken again, whatever became of its successor.
    ReuseIsTaken,
    /// A used refresh token yields its successor for ever.
    GraceWithoutEnd,
    /// News are asked for and nothing is heard.
    NewsUnheard,
    /// A revocation is written and nobody is told.
    RevocationUntold,
    /// Epochs and roles are written and nobody is told.
    NoticeUntold,
    /// A session is revoked and goes on.
    EndUnmarked,
    /// Everybody gets the claim that only one should have.
    ClaimForAll,
    /// A store that has lost everything says that it is the one that it was.
    SameBirthMark,
    /// A crash takes with it what was answered a moment ago.
    AnswersUnsynced,
}

impl Defect {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::ReuseIsTaken,
        Self::GraceWithoutEnd,
        Self::NewsUnheard,
        Self::RevocationUntold,
        Self::NoticeUntold,
        Self::EndUnmarked,
        Self::ClaimForAll,
        Self::SameBirthMark,
        Self::AnswersUnsynced,
    ];

    /// A script with the defect in it.
    pub(super) fn spoil(self, script: &str) -> String {
        let of = |first_words: &str| script.starts_with(first_words);
        let (which, from, to) = match self {
            Self::ReuseIsTaken => ("-- What becomes", "return told('reused', ends)", "return told('rotated', ends)"),
            Self::GraceWithoutEnd => ("-- What becomes", "tonumber(grace)", "1e15"),
            Self::NewsUnheard => ("-- The birth mark", "'COUNT', ARGV[2]", "'COUNT', 1"),
            Self::RevocationUntold => ("-- Writes a revocation", "redis.call('XADD'", "tostring('XADD'"),
            Self::NoticeUntold => ("-- Writes an epoch", "redis.call('XADD'", "tostring('XADD'"),
            Self::EndUnmarked => ("-- Ends a session", "redis.call('HSET'", "tostring('HSET'"),
            Self::ClaimForAll | Self::SameBirthMark | Self::AnswersUnsynced => return script.to_owned(),
        };
        if !of(which) {
            return script.to_owned();
        }
        assert!(script.contains(from), "the script has changed: give {self:?} another place in it");
        script.replace(from, to)
    }
}
