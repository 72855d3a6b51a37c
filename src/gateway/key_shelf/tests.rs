use std::collections::HashSet;
use std::path::Path;

use futures_util::future::join_all;

use super::*;
use crate::clock::Timestamp;
use crate::ids::Secret;
use crate::store::sqlite::Sqlite;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn section(folder: &Path, master: &str, previous: Option<&str>) -> config::Keys {
    let secret = |text: &str| Secret::new(text.to_owned());
    config::Keys::Store { master_key: Some(secret(master)), previous: previous.map(secret), local: folder.to_owned() }
}

/// A store, and as many instances as a test wants.
struct Scene {
    folder: tempfile::TempDir,
    sessions: Arc<dyn Sessions>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sessions: Arc<dyn Sessions> = Sqlite::open(&folder.path().join("wxgate.db")).unwrap();
        Self { folder, sessions }
    }

    fn instance(&self, master: &str, previous: Option<&str>) -> KeyShelf {
        KeyShelf::new(&section(self.folder.path(), master, previous), &self.sessions, &Clock::manual(NOW)).unwrap()
    }

    async fn record(&self) -> Option<Vec<u8>> {
        self.sessions.key_bundle().await.unwrap()
    }

    async fn put(&self, record: &[u8]) {
        let now = self.record().await;
        assert!(self.sessions.replace_key_bundle(now.as_deref(), record).await.unwrap());
    }

    /// What somebody who has the database can do.
    fn lose(&self) {
        let db = rusqlite::Connection::open(self.folder.path().join("wxgate.db")).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        db.execute_batch("DELETE FROM key_bundle").unwrap();
    }
}

async fn write(shelf: &KeyShelf, name: &'static str, content: &'static [u8]) -> Result<(), Error> {
    shelf.change(move |draft| draft.write(name, content).map_err(Error::Folder)).await
}

async fn look(shelf: &KeyShelf) -> Result<(), Error> {
    shelf.change(|_| Ok::<_, Error>(())).await
}

fn holds(shelf: &KeyShelf, name: &str) -> Option<Vec<u8>> {
    shelf.shelf().read(name).ok().map(|content| content.to_vec())
}

#[tokio::test]
async fn what_one_instance_changes_is_in_force_there_and_with_the_others_when_they_look() {
    let scene = Scene::new();
    let (one, two) = (scene.instance("a", None), scene.instance("a", None));
    look(&one).await.unwrap();
    assert_eq!(scene.record().await, None, "nothing was made, so nothing is kept");
    write(&one, "x", b"1").await.unwrap();
    assert_eq!((holds(&one, "x"), holds(&two, "x")), (Some(b"1".to_vec()), None));
    look(&two).await.unwrap();
    assert_eq!(holds(&two, "x"), Some(b"1".to_vec()));
    let record = scene.record().await;
    look(&one).await.unwrap();
    assert_eq!(scene.record().await, record, "looking writes nothing");
}

#[tokio::test]
async fn of_twenty_first_starts_at_once_all_hold_what_one_has_made() {
    let scene = Scene::new();
    let instances: Vec<KeyShelf> = (0..20).map(|_| scene.instance("a", None)).collect();
    let made = |draft: &Shelf| {
        let own = uuid::Uuid::new_v4();
        draft.write_new("x", own.as_bytes()).map(|x| x.to_vec()).map_err(Error::Folder)
    };
    let made: HashSet<Vec<u8>> =
        join_all(instances.iter().map(|one| one.change(made))).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(made.len(), 1, "what lost the race was in force nowhere");
    for instance in &instances {
        assert_eq!(holds(instance, "x"), made.iter().next().cloned());
    }
}

#[tokio::test]
async fn of_changes_at_once_none_is_lost() {
    let scene = Scene::new();
    let instances: Vec<KeyShelf> = (0..5).map(|_| scene.instance("a", None)).collect();
    let names = ["a", "b", "c", "d"];
    let changes = instances.iter().enumerate().flat_map(|(n, instance)| {
        names.iter().map(move |name| {
            let name = format!("{n}{name}");
            instance.change(move |draft| draft.write(&name, b"").map_err(Error::Folder))
        })
    });
    join_all(changes).await.into_iter().for_each(Result::unwrap);
    look(&instances[0]).await.unwrap();
    assert_eq!(instances[0].shelf().names().unwrap().len(), 20);
}

#[tokio::test]
async fn a_change_that_fails_leaves_no_trace() {
    let scene = Scene::new();
    let one = scene.instance("a", None);
    write(&one, "x", b"1").await.unwrap();
    let record = scene.record().await;
    let failing = |draft: &Shelf| {
        draft.write("x", b"2").unwrap();
        Err::<(), _>(Error::Closed)
    };
    assert!(matches!(one.change(failing).await, Err(Error::Closed)));
    assert_eq!((holds(&one, "x"), scene.record().await), (Some(b"1".to_vec()), record));
}

#[tokio::test]
async fn another_master_key_opens_nothing_and_replaces_nothing() {
    let scene = Scene::new();
    write(&scene.instance("a", None), "x", b"1").await.unwrap();
    let record = scene.record().await;
    let wrong = scene.instance("b", None);
    let refused = write(&wrong, "x", b"2").await.unwrap_err().to_string();
    assert!(
        refused.contains("sealed with another master key") && refused.contains("set token.master_key"),
        "{refused}"
    );
    assert_eq!((scene.record().await, holds(&wrong, "x")), (record, None));
}

#[tokio::test]
async fn a_damaged_record_is_refused_and_stays_as_it_is() {
    let scene = Scene::new();
    let one = scene.instance("a", None);
    write(&one, "x", b"1").await.unwrap();
    let mut record = scene.record().await.unwrap();
    *record.last_mut().unwrap() ^= 1;
    scene.put(&record).await;
    for instance in [&one, &scene.instance("a", None)] {
        let refused = look(instance).await.unwrap_err().to_string();
        assert!(refused.contains("damaged") && refused.contains("backup"), "{refused}");
    }
    assert_eq!((holds(&one, "x"), scene.record().await), (Some(b"1".to_vec()), Some(record)));
}

#[tokio::test]
async fn keys_that_are_gone_from_the_store_or_were_turned_back_are_put_back_by_who_holds_them() {
    let scene = Scene::new();
    let one = scene.instance("a", None);
    write(&one, "x", b"1").await.unwrap();
    let old = scene.record().await.unwrap();
    write(&one, "x", b"2").await.unwrap();
    scene.lose();
    look(&one).await.unwrap();
    let other = scene.instance("a", None);
    look(&other).await.unwrap();
    assert_eq!(holds(&other, "x"), Some(b"2".to_vec()), "and no new ones are made in their place");

    scene.put(&old).await;
    look(&other).await.unwrap();
    let late = scene.instance("a", None);
    for instance in [&late, &one] {
        look(instance).await.unwrap();
        assert_eq!(holds(instance, "x"), Some(b"2".to_vec()));
    }
    let (bundle, _) =
        Bundle::open(&scene.record().await.unwrap(), PURPOSE, &[MasterKey::new(&Secret::new("a".into()))]).unwrap();
    assert_eq!(bundle.version, 4, "later than any that was there");
}

#[tokio::test]
async fn the_keys_of_another_deployment_are_taken_up_since_all_others_have_them() {
    let (scene, elsewhere) = (Scene::new(), Scene::new());
    let one = scene.instance("a", None);
    write(&one, "x", b"1").await.unwrap();
    write(&one, "x", b"2").await.unwrap();
    write(&elsewhere.instance("a", None), "x", b"other").await.unwrap();
    scene.put(&elsewhere.record().await.unwrap()).await;
    look(&one).await.unwrap();
    assert_eq!(holds(&one, "x"), Some(b"other".to_vec()));
}

#[tokio::test]
async fn a_master_key_takes_the_place_of_another_instance_by_instance() {
    let scene = Scene::new();
    let old = scene.instance("old", None);
    write(&old, "x", b"1").await.unwrap();
    let both = scene.instance("new", Some("old"));
    look(&both).await.unwrap();
    // From now on either opens it, and both may change it.
    let new = || scene.instance("new", None);
    for change in [b"2", b"3"] {
        write(&old, "x", change).await.unwrap();
        look(&both).await.unwrap();
        assert_eq!(holds(&both, "x"), Some(change.to_vec()));
    }
    look(&new()).await.unwrap();
    assert_eq!(holds(&both, "x"), Some(b"3".to_vec()));
    look(&both).await.unwrap();
    let refused = look(&scene.instance("old", None)).await.unwrap_err().to_string();
    assert!(refused.contains("another master key"), "{refused}");
    look(&new()).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_was_to_be_moved_is_not_passed_over() {
    let scene = Scene::new();
    let former = scene.folder.path().join("keys");
    keyfile::create_dir(&former).unwrap();
    keyfile::write(&former.join("ring.json"), b"{}").unwrap();
    let refused = write(&scene.instance("a", None), "x", b"1").await.unwrap_err().to_string();
    assert!(refused.contains("wxgate keys import --from"), "{refused}");
    let mut moving = scene.instance("a", None);
    moving.begin_without_former();
    write(&moving, "x", b"1").await.unwrap();
    write(&scene.instance("a", None), "x", b"2").await.unwrap();
}

#[tokio::test]
async fn without_a_master_key_nothing_is_asked_and_a_closed_store_is_no_empty_one() {
    let scene = Scene::new();
    let unknown = config::Keys::Store { master_key: None, previous: None, local: scene.folder.path().to_owned() };
    let refused = KeyShelf::new(&unknown, &scene.sessions, &Clock::manual(NOW)).unwrap_err().to_string();
    assert!(refused.contains("set the environment variable"), "{refused}");
    let one = scene.instance("a", None);
    write(&one, "x", b"1").await.unwrap();
    drop(scene);
    assert!(matches!(look(&one).await, Err(Error::Closed)));
    assert_eq!(holds(&one, "x"), Some(b"1".to_vec()), "what was read last stays in force");
}
