use proptest::prelude::*;

use super::*;
use crate::ids::Secret;

const PURPOSE: &str = "keys";

fn master(text: &str) -> MasterKey {
    MasterKey::new(&Secret::new(text.to_owned()))
}

fn file(content: &[u8]) -> KeyFile {
    KeyFile { content: Zeroizing::new(content.to_vec()), written_at: Timestamp::from_millis(1_700_000_000_123) }
}

fn bundle(version: u64) -> Bundle {
    let files = [("ring.json", &b"{\"keys\":[]}"[..]), ("sealing.key", b"planted-key"), ("empty", b"")];
    let files = files.map(|(name, content)| (name.to_owned(), file(content)));
    Bundle { deployment: [7; 16], version, files: files.into() }
}

fn open(record: &[u8], masters: &[&str]) -> Result<(Bundle, Fate), Error> {
    Bundle::open(record, PURPOSE, &masters.iter().map(|text| master(text)).collect::<Vec<_>>())
}

fn seal(bundle: &Bundle, masters: &[&str]) -> Vec<u8> {
    bundle.seal(PURPOSE, &masters.iter().map(|text| master(text)).collect::<Vec<_>>()).unwrap()
}

#[test]
fn what_was_sealed_opens_with_the_same_master_key_and_no_two_records_are_alike() {
    let sealed = seal(&bundle(3), &["a"]);
    assert_eq!(open(&sealed, &["a"]).unwrap(), (bundle(3), Fate::Stays));
    assert_ne!(seal(&bundle(3), &["a"]), sealed);
    assert!(!sealed.windows(7).any(|w| w == b"planted"), "nothing lies there in clear");
    assert!(!sealed.windows(9).any(|w| w == b"ring.json"), "nor do names");
    assert_eq!(format!("{:?} {:?}", bundle(3), file(b"planted")), "Bundle(version 3, 3 files) KeyFile(…)");
    assert_ne!(Bundle::first().unwrap().deployment, Bundle::first().unwrap().deployment);
}

#[test]
fn another_master_key_is_told_from_damage_and_named() {
    let refused = open(&seal(&bundle(1), &["a"]), &["b"]).unwrap_err();
    let (a, b) = (shown(&master("a").id()), shown(&master("b").id()));
    assert_eq!(refused, Error::OtherMasterKey { sealed_by: a, configured: b });
}

#[test]
fn a_record_of_another_purpose_or_format_does_not_open() {
    let sealed = seal(&bundle(1), &["a"]);
    assert_eq!(Bundle::open(&sealed, "import", &[master("a")]).unwrap_err(), Error::Damaged);
    let mut later = sealed.clone();
    later[MAGIC.len()] = FORMAT + 1;
    for none in [&later[..], b"", b"wxkb", &sealed[..FIXED_LEN - 1]] {
        assert_eq!(open(none, &["a"]).unwrap_err(), Error::Unknown);
    }
}

#[test]
fn a_version_or_a_head_of_another_record_opens_nothing() {
    let (old, new) = (seal(&bundle(1), &["a"]), seal(&bundle(2), &["a"]));
    let head = FIXED_LEN + 1 + ID_LEN + SEALED_KEY_LEN;
    for at in [MAGIC.len() + 25, FIXED_LEN, head] {
        let moved = [&new[..at], &old[at..]].concat();
        assert_eq!(open(&moved, &["a"]).unwrap_err(), Error::Damaged, "{at}");
    }
}

#[test]
fn a_master_key_takes_the_place_of_another_while_both_are_in_use() {
    // Everybody has "old"; then one has both, and seals for both.
    let sealed = seal(&bundle(1), &["old"]);
    assert_eq!(open(&sealed, &["new", "old"]).unwrap().1, Fate::SealAnew);
    let sealed = seal(&bundle(2), &["new", "old"]);
    assert_eq!(open(&sealed, &["new", "old"]).unwrap(), (bundle(2), Fate::Stays));
    // Who has the old one still opens it, and leaves it as it is.
    assert_eq!(open(&sealed, &["old"]).unwrap(), (bundle(2), Fate::Stays));
    // Who has no other than the new one any more has it sealed without the old one, and who still has both lets that be.
    assert_eq!(open(&sealed, &["new"]).unwrap().1, Fate::SealAnew);
    let sealed = seal(&bundle(3), &["new"]);
    assert_eq!(open(&sealed, &["new", "old"]).unwrap().1, Fate::Stays);
    assert!(matches!(open(&sealed, &["old"]), Err(Error::OtherMasterKey { .. })));
}

proptest! {
    #[test]
    fn a_record_with_any_byte_changed_or_any_length_cut_or_grown_is_refused(
        files in prop::collection::btree_map("[a-z.]{1,12}", prop::collection::vec(any::<u8>(), 0..80), 0..5),
        version in any::<u64>(),
        two in any::<bool>(),
        at in any::<prop::sample::Index>(),
        by in 1..=255_u8,
    ) {
        let files = files.into_iter().map(|(name, content)| (name, file(&content))).collect();
        let bundle = Bundle { deployment: [9; 16], version, files };
        let masters: &[&str] = if two { &["a", "b"] } else { &["a"] };
        let sealed = seal(&bundle, masters);
        prop_assert_eq!(&open(&sealed, masters).unwrap().0, &bundle);
        for master in masters {
            let mut changed = sealed.clone();
            changed[at.index(sealed.len())] ^= by;
            prop_assert!(open(&changed, &[master]).is_err());
            prop_assert!(open(&sealed[..at.index(sealed.len())], &[master]).is_err());
            prop_assert!(open(&[&sealed[..], &[by]].concat(), &[master]).is_err());
        }
    }
}

#[test]
fn no_single_byte_of_a_record_can_be_flipped() {
    let sealed = seal(&bundle(5), &["a", "b"]);
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(open(&changed, &["a"]).is_err() && open(&changed, &["b", "a"]).is_err(), "byte {at}");
    }
}
