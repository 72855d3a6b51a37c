use super::super::jwks;
use super::super::keys::{Entry, KeyRing, import_pem};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Scene {
    home: tempfile::TempDir,
    clock: Clock,
    policy: Policy,
}

impl Scene {
    fn of(algorithm: Algorithm) -> Self {
        let policy = Policy { algorithm, every: Some(90 * DAY), access_ttl: 2 * HOUR };
        let scene = Self {
            home: tempfile::tempdir().unwrap(),
            clock: Clock::manual(Timestamp::from_secs(1_700_000_000)),
            policy,
        };
        scene.ring();
        scene.tend();
        scene
    }

    fn ring(&self) -> KeyRing {
        KeyRing::open(self.home.path(), self.policy.algorithm, &self.clock).unwrap()
    }

    fn tend(&self) -> Vec<Step> {
        tend(self.home.path(), &self.policy, &self.clock).unwrap()
    }

    fn rotate(&self, at_once: bool) -> Vec<Step> {
        rotate(self.home.path(), &self.policy, at_once, &self.clock).unwrap()
    }

    /// Rotates at once, and waits until that has been done.
    fn rotate_now(&self) -> Vec<Step> {
        self.rotate(true);
        self.clock.advance(LEAD_AT_ONCE + Duration::from_secs(1));
        self.tend()
    }

    /// The key that signs.
    fn signer(&self) -> String {
        self.ring().signer(self.policy.algorithm, false).unwrap().kid().to_owned()
    }

    fn states(&self) -> Vec<State> {
        self.ring().entries().iter().map(|e: &Entry| e.state).collect()
    }

    fn publishes(&self, kid: &str) -> bool {
        jwks::document(&self.ring()).contains(kid)
    }

    fn files(&self) -> usize {
        let names = std::fs::read_dir(self.home.path()).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".pem")).count()
    }
}

#[test]
fn by_age_a_key_is_published_then_signs_then_verifies_and_then_goes() {
    let scene = Scene::of(Algorithm::Es256);
    let first = scene.signer();
    scene.clock.advance(90 * DAY - LEAD - Duration::from_secs(1));
    assert_eq!(scene.tend(), []);
    scene.clock.advance(Duration::from_secs(1));
    let [Step::Published { kid: second, signs_at, .. }] = &scene.tend()[..] else { panic!("{:?}", scene.states()) };
    assert_eq!(*signs_at, scene.clock.now().plus(LEAD));
    assert_eq!(scene.states(), [State::Active, State::Next]);
    assert!(scene.publishes(second) && scene.ring().verifying_key(second).is_some(), "before it signs");
    assert_eq!((scene.signer(), scene.tend()), (first.clone(), Vec::new()));

    scene.clock.advance(LEAD);
    assert_eq!(scene.tend(), [Step::Activated { algorithm: Algorithm::Es256, kid: second.clone() }]);
    assert_eq!(scene.signer(), *second);
    // The last token of the first key was signed just now.
    scene.clock.advance(2 * HOUR);
    assert_eq!(scene.tend(), []);
    assert!(scene.publishes(&first) && scene.ring().verifying_key(&first).is_some());
    scene.clock.advance(MARGIN);
    assert_eq!(scene.tend(), [Step::Removed { algorithm: Algorithm::Es256, kid: first.clone() }]);
    assert!(!scene.publishes(&first) && scene.files() == 1);
}

#[test]
fn without_an_age_nothing_rotates_but_by_command() {
    let mut scene = Scene::of(Algorithm::EdDsa);
    scene.policy.every = None;
    let first = scene.signer();
    scene.clock.advance(1000 * DAY);
    assert_eq!(scene.tend(), []);
    let steps = scene.rotate(false);
    let [Step::Published { kid, .. }] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(scene.rotate(false), steps, "a second command makes no second key");
    scene.clock.advance(LEAD - Duration::from_secs(1));
    assert_eq!((scene.tend(), scene.signer()), (Vec::new(), first));
    scene.clock.advance(Duration::from_secs(1));
    assert_eq!(scene.tend().len(), 1);
    assert_eq!(scene.signer(), *kid);
}

#[test]
fn at_once_a_stolen_key_signs_no_more_as_soon_as_every_instance_knows_the_new_one() {
    let scene = Scene::of(Algorithm::Es256);
    let stolen = scene.signer();
    let steps = scene.rotate(true);
    let [Step::Published { kid, .. }] = &steps[..] else { panic!("{steps:?}") };
    scene.clock.advance(LEAD_AT_ONCE);
    assert_eq!((scene.tend(), scene.signer()), (Vec::new(), stolen.clone()));
    assert!(scene.ring().verifying_key(kid).is_some(), "whoever looks verifies it already");
    scene.clock.advance(Duration::from_secs(1));
    assert!(matches!(&scene.tend()[..], [Step::Activated { .. }]));
    assert_eq!(scene.signer(), *kid);
    assert!(scene.ring().verifying_key(&stolen).is_some(), "what it signed stays good");

    // One that was published long ago need not wait.
    scene.rotate(false);
    scene.clock.advance(LEAD / 2);
    assert!(matches!(&scene.rotate(true)[..], [Step::Published { .. }, Step::Activated { .. }]));
}

#[test]
fn a_key_outlives_the_longest_life_that_its_tokens_ever_had() {
    let mut scene = Scene::of(Algorithm::Es256);
    scene.policy.access_ttl = 10 * DAY;
    scene.tend();
    scene.policy.access_ttl = HOUR;
    scene.rotate_now();
    scene.clock.advance(10 * DAY + MARGIN - Duration::from_secs(1));
    assert_eq!(scene.tend(), []);
    scene.clock.advance(Duration::from_secs(1));
    assert_eq!(scene.tend().len(), 1);
}

#[test]
fn another_algorithm_is_published_first_and_the_old_one_signs_until_then() {
    let mut scene = Scene::of(Algorithm::Rs256);
    let old = scene.signer();
    scene.policy.algorithm = Algorithm::Es256;
    assert_eq!(scene.signer(), old, "stands in");
    let new = scene.ring().entries()[1].key.kid().to_owned();
    assert!(scene.publishes(&new));
    scene.clock.advance(LEAD);
    scene.tend();
    assert_eq!(scene.signer(), new);
    // An instance that has not been told yet signs with the old one.
    scene.clock.advance(FAREWELL);
    assert_eq!(scene.tend(), [Step::Retired { algorithm: Algorithm::Rs256, kid: old.clone() }]);
    scene.clock.advance(2 * HOUR + MARGIN);
    assert_eq!(scene.tend(), [Step::Removed { algorithm: Algorithm::Rs256, kid: old }]);
}

#[test]
fn beside_a_shared_secret_the_key_of_assertions_rotates_too() {
    let scene = Scene::of(Algorithm::Hs256);
    assert_eq!(scene.ring().entries().len(), 2);
    assert_eq!(scene.rotate_now().len(), 2);
    let signers = [(Algorithm::Hs256, false), (Algorithm::Es256, true)];
    for (algorithm, published) in signers {
        assert_eq!(scene.ring().signer(algorithm, published).unwrap().algorithm(), algorithm);
    }
}

#[test]
fn an_imported_key_is_not_retired_with_its_algorithm_and_stays_long_when_it_is_replaced() {
    let scene = Scene::of(Algorithm::Es256);
    let import = |algorithm| {
        let pem = Key::generate(algorithm).unwrap();
        import_pem(scene.home.path(), &pem, &scene.clock).unwrap().kid
    };
    let (other, own) = (import(Algorithm::EdDsa), import(Algorithm::Es256));
    scene.clock.advance(2 * FAREWELL);
    scene.tend();
    assert!(scene.ring().signing_key(Algorithm::EdDsa).is_some_and(|key| key.kid() == other));
    scene.rotate_now();
    scene.clock.advance(29 * DAY);
    scene.tend();
    assert!(scene.ring().verifying_key(&own).is_some(), "others' tokens may live longer than ours");
    scene.clock.advance(2 * DAY);
    scene.tend();
    assert!(scene.ring().verifying_key(&own).is_none() && scene.ring().verifying_key(&other).is_some());
}

#[test]
fn instances_that_tend_one_ring_at_once_make_one_key() {
    let scene = Scene::of(Algorithm::EdDsa);
    scene.clock.advance(90 * DAY);
    let steps: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| scene.tend().len())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((steps, scene.files()), (1, 2));
    scene.clock.advance(LEAD);
    let rings: Vec<String> = std::thread::scope(|scope| {
        let tended = || {
            scene.tend();
            scene.signer()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(tended)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(rings.iter().all(|kid| *kid == rings[0]), "{rings:?}");
}

#[test]
fn a_ring_knows_when_another_has_changed_it() {
    let scene = Scene::of(Algorithm::Es256);
    let ring = scene.ring();
    assert!(ring.is_current(scene.home.path()).unwrap());
    scene.rotate(false);
    assert!(!ring.is_current(scene.home.path()).unwrap());
}

#[test]
fn a_ring_of_the_first_version_is_read_and_its_keys_stay_a_month() {
    let scene = Scene::of(Algorithm::Es256);
    let first = scene.signer();
    let of_old = format!(
        r#"{{"version":1,"keys":[{{"kid":"{first}","alg":"ES256","state":"active","since":1600000000,"created_at":1600000000}}]}}"#
    );
    crate::keyfile::write(&scene.home.path().join("ring.json"), of_old.as_bytes()).unwrap();
    assert_eq!(scene.signer(), first);
    assert_eq!(scene.tend().len(), 1, "it is of age");
}

#[test]
fn a_clock_that_jumps_an_hour_neither_drops_a_key_in_use_nor_stops_the_rotation() {
    let scene = Scene::of(Algorithm::Es256);
    let first = scene.signer();
    scene.rotate_now();
    scene.clock.advance(2 * HOUR + HOUR);
    scene.tend();
    assert!(scene.ring().verifying_key(&first).is_some(), "an hour ahead is within the margin");
    scene.clock.set_back(2 * HOUR);
    scene.tend();
    scene.rotate(false);
    scene.clock.set_back(HOUR);
    assert_eq!(scene.tend(), []);
    scene.clock.advance(HOUR + LEAD);
    assert!(matches!(&scene.tend()[..], [Step::Activated { .. }]));
}

#[test]
fn the_longest_life_of_its_tokens_is_known() {
    let own = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
    let ring = KeyRing::open(own.path(), Algorithm::Hs256, &clock).unwrap();
    assert_eq!(ring.longest_life(), Duration::ZERO, "nothing was signed yet");

    let mut scene = Scene::of(Algorithm::Es256);
    let life = |scene: &Scene| scene.ring().longest_life();
    assert_eq!(life(&scene), 2 * HOUR);
    scene.rotate(false);
    assert_eq!(life(&scene), 2 * HOUR, "a next key has signed nothing");
    // Raised, and rotated before anybody looked: the key that goes has signed with it, too.
    scene.policy.access_ttl = 5 * DAY;
    scene.clock.advance(LEAD);
    assert_eq!(scene.rotate(true).len(), 2);
    scene.policy.access_ttl = HOUR;
    scene.tend();
    assert_eq!(life(&scene), 5 * DAY, "and lowered since");
    scene.clock.advance(5 * DAY + MARGIN);
    scene.tend();
    assert_eq!((scene.files(), life(&scene)), (1, 5 * DAY), "the key that signs now began with it");
    scene.rotate_now();
    scene.clock.advance(5 * DAY + MARGIN);
    scene.tend();
    assert_eq!(life(&scene), HOUR);

    import_pem(scene.home.path(), &Key::generate(Algorithm::EdDsa).unwrap(), &scene.clock).unwrap();
    let month = Duration::from_secs(30 * 24 * 3600);
    assert_eq!(life(&scene), month, "what others signed with it is not ours to know");
}

#[test]
fn keys_of_which_nothing_was_written_down_are_taken_for_somebody_elses() {
    let month = Duration::from_secs(30 * 24 * 3600);
    let scene = Scene::of(Algorithm::Es256);
    std::fs::remove_file(scene.home.path().join("ring.json")).unwrap();
    scene.tend();
    assert_eq!(scene.ring().longest_life(), month, "the list was lost");

    let scene = Scene::of(Algorithm::Es256);
    let ring = std::fs::read_to_string(scene.home.path().join("ring.json")).unwrap();
    let of_old = ring.replace("\"life\": 7200", "\"imported\": false");
    assert_ne!(ring, of_old);
    crate::keyfile::write(&scene.home.path().join("ring.json"), of_old.as_bytes()).unwrap();
    scene.tend();
    assert_eq!(scene.ring().longest_life(), month, "a ring of the first version");
}
