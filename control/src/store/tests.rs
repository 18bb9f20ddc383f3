use super::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        kind: "VirtualService".into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

fn object(name: &str, yaml: &str) -> StoredObject {
    StoredObject {
        key: key(name),
        document: Document {
            file: "x.yaml".into(),
            first_line: 1,
            text: yaml.into(),
        },
        revision: 0,
    }
}

fn put(book: &Book, name: &str, yaml: Option<&str>) -> u64 {
    let before = book.objects().unwrap().remove(&key(name));
    let after = yaml.map(|yaml| object(name, yaml));
    let base = book.revision().unwrap();
    let change = Change {
        key: key(name),
        before,
        after,
    };
    book.apply(base, vec![change], "root", "apply", 1).unwrap()
}

fn texts(book: &Book) -> BTreeMap<String, String> {
    let objects = book.objects().unwrap();
    objects
        .into_iter()
        .map(|(key, object)| (key.name, object.document.text))
        .collect()
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    {
        let book = Book::new(Arc::new(Disk::open(&path).unwrap()));
        assert_eq!(put(&book, "a", Some("one")), 1);
        assert_eq!(put(&book, "a", Some("two")), 2);
    }
    let book = Book::new(Arc::new(Disk::open(&path).unwrap()));
    assert_eq!(book.revision().unwrap(), 2);
    assert_eq!(texts(&book), [("a".into(), "two".into())].into());
    assert_eq!(book.objects().unwrap()[&key("a")].revision, 2);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A copy of the file taken while the store is open is what a kill -9 leaves behind.
#[test]
fn a_file_left_by_a_kill_opens_with_every_committed_revision() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let book = Book::new(Arc::new(Disk::open(&path).unwrap()));
    for n in 1..=5 {
        put(&book, "a", Some(&format!("v{n}")));
        let copy = dir.path().join(format!("killed-{n}.redb"));
        std::fs::copy(&path, &copy).unwrap();
        let after = Book::new(Arc::new(Disk::open(&copy).unwrap()));
        assert_eq!(after.revision().unwrap(), n);
        assert_eq!(texts(&after), [("a".into(), format!("v{n}"))].into());
        assert_eq!(after.history().unwrap().len() as u64, n);
    }
}

#[test]
fn of_two_applies_on_one_base_the_second_is_told_the_current_revision() {
    let book = Book::new(Arc::new(Disk::in_memory().unwrap()));
    put(&book, "a", Some("one"));
    let change = Change {
        key: key("b"),
        before: None,
        after: Some(object("b", "x")),
    };
    let refused = book.apply(0, vec![change], "root", "apply", 1);
    assert!(matches!(
        refused,
        Err(StoreError::Revision {
            expected: 0,
            current: 1
        })
    ));
    assert_eq!(texts(&book), [("a".into(), "one".into())].into());
}

#[test]
fn going_back_restores_changed_deleted_and_removes_created() {
    let book = Book::new(Arc::new(Disk::in_memory().unwrap()));
    put(&book, "a", Some("a1"));
    let wanted = put(&book, "b", Some("b1"));
    let then = texts(&book);
    put(&book, "a", Some("a2"));
    put(&book, "a", Some("a3"));
    put(&book, "b", None);
    put(&book, "c", Some("c1"));
    let changes = book.back_to(wanted).unwrap();
    let base = book.revision().unwrap();
    book.apply(base, changes, "root", "rollback 2", 1).unwrap();
    assert_eq!(texts(&book), then);
    assert_eq!(book.revision().unwrap(), 7, "a rollback is a revision");
    assert!(book.back_to(99).is_err());
    assert_eq!(
        book.back_to(0).unwrap().len(),
        2,
        "before the first revision there was nothing"
    );
}

#[test]
fn generations_never_repeat() {
    let book = Book::new(Arc::new(Disk::in_memory().unwrap()));
    let (a, b) = book.reserve_generations().unwrap();
    let (c, d) = book.reserve_generations().unwrap();
    assert!(a < b && b == c && c < d);
}

#[test]
fn a_token_is_spent_once_even_by_two_at_once() {
    let book = Book::new(Arc::new(Disk::in_memory().unwrap()));
    let binding = Binding {
        node: ringmesh_wire::NodeId("n".into()),
        namespace: "default".into(),
        service_account: "sa".into(),
        service: "s".into(),
        labels: BTreeMap::new(),
    };
    let token = TokenRecord {
        id: "id".into(),
        secret_sha256: "00".into(),
        binding: binding.clone(),
        created_ms: 0,
        expires_ms: 10,
        created_by: "root".into(),
        state: TokenState::Fresh,
    };
    book.add_token(&token).unwrap();
    assert!(book.add_token(&token).is_err(), "ids are unique");
    let node = NodeRecord {
        binding,
        enrolled_ms: 1,
        certificates: Vec::new(),
    };
    let used = TokenState::Used {
        at_ms: 1,
        by_sha256: "ab".into(),
    };
    book.enroll(&token, &node, used.clone()).unwrap();
    assert!(matches!(
        book.enroll(&token, &node, used.clone()),
        Err(StoreError::Conflict { .. })
    ));
    assert_eq!(book.token("id").unwrap().unwrap().state, used);
}

/// A store to which somebody else writes an audit entry just before each of our first commits.
#[derive(Debug)]
struct Contended {
    disk: Arc<Disk>,
    rivals: std::sync::atomic::AtomicU64,
}

impl Store for Contended {
    fn get(&self, shelf: Shelf, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.get(shelf, key)
    }

    fn scan(&self, shelf: Shelf) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.disk.scan(shelf)
    }

    fn commit(&self, txn: &Txn) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering::Relaxed;
        let left = self.rivals.load(Relaxed);
        if left > 0 {
            self.rivals.store(left - 1, Relaxed);
            Book::new(Arc::clone(&self.disk) as Arc<dyn Store>).audit(&entry("rival"))?;
        }
        self.disk.commit(txn)
    }
}

fn entry(who: &str) -> AuditEntry {
    AuditEntry {
        when_ms: 1,
        who: who.into(),
        what: "token create".into(),
    }
}

fn contended(rivals: u64) -> Book {
    Book::new(Arc::new(Contended {
        disk: Arc::new(Disk::in_memory().unwrap()),
        rivals: rivals.into(),
    }))
}

#[test]
fn an_audit_entry_waits_for_those_that_were_faster_and_none_is_lost() {
    let book = contended(40);
    book.audit(&entry("us")).unwrap();
    book.audit(&entry("us")).unwrap();
    let (chain, written) = book.audit_chain().unwrap();
    let who: Vec<&str> = written.iter().map(|one| one.entry.who.as_str()).collect();
    assert_eq!(who.len(), 42);
    assert_eq!(who[40..], ["us", "us"]);
    let unbroken = verify(chain.as_ref(), &written).unwrap();
    assert_eq!(unbroken.chained.unwrap().0, 1);
}

/// What a version without a chain left behind.
fn write_unchained(store: &dyn Store, count: u64) {
    let mut txn = Txn::default();
    for number in 1..=count {
        let json =
            format!(r#"{{"when_ms":{number},"who":"root","what":"token create n{number}"}}"#);
        txn.write
            .push((Shelf::Audit, format!("{number:020}"), Some(json.into())));
    }
    let counter = count.to_string().into_bytes();
    txn.write
        .push((Shelf::Meta, "audit".to_owned(), Some(counter)));
    store.commit(&txn).unwrap();
}

#[test]
fn a_record_without_a_chain_opens_and_the_chain_begins_then() {
    let store: Arc<dyn Store> = Arc::new(Disk::in_memory().unwrap());
    write_unchained(&*store, 3);
    let book = Book::new(Arc::clone(&store));
    let (chain, records) = book.audit_chain().unwrap();
    assert_eq!(chain, None);
    assert_eq!(verify(None, &records).unwrap().unchained, 3);
    let link = book.audit(&entry("us")).unwrap();
    assert_eq!(link.number, 4);
    let (chain, records) = book.audit_chain().unwrap();
    assert_eq!(records[0].entry.what, "token create n1");
    let unbroken = verify(chain.as_ref(), &records).unwrap();
    assert_eq!(unbroken.unchained, 3);
    assert_eq!(unbroken.chained, Some((4, link)));
}

#[test]
fn what_falls_off_leaves_a_hash_from_which_the_rest_is_checked() {
    let store: Arc<dyn Store> = Arc::new(Disk::in_memory().unwrap());
    write_unchained(&*store, 2);
    let book = Book::keeping(Arc::clone(&store), 5);
    let mut links = Vec::new();
    for written in 1..=20 {
        links.push(book.audit(&entry("us")).unwrap());
        let (chain, records) = book.audit_chain().unwrap();
        assert_eq!(records.len() as u64, (written + 2).min(5));
        let unbroken = verify(chain.as_ref(), &records).unwrap();
        // Numbers 1 and 2 have no hash, so that of 3 is the first to be an anchor.
        let anchor = (written + 2_u64).checked_sub(5).filter(|gone| *gone > 2);
        assert_eq!(unbroken.anchor.map(|anchor| anchor.number), anchor);
        let noted = links.iter().rev().take(5);
        for link in noted {
            holds(chain.as_ref(), &records, link).unwrap();
        }
    }
    let (chain, records) = book.audit_chain().unwrap();
    assert!(holds(chain.as_ref(), &records, &links[0]).is_err());

    // Somebody else's hand in the store.
    let at = format!("{:020}", 20);
    let row = store.get(Shelf::Audit, &at).unwrap().unwrap();
    let changed = String::from_utf8(row).unwrap().replace("token", "other");
    store
        .commit(&Txn {
            expect: Vec::new(),
            write: vec![(Shelf::Audit, at, Some(changed.into()))],
        })
        .unwrap();
    let (chain, records) = book.audit_chain().unwrap();
    assert_eq!(verify(chain.as_ref(), &records).unwrap_err().number, 20);
    // What is written behind it does not heal it.
    book.audit(&entry("us")).unwrap();
    let (chain, records) = book.audit_chain().unwrap();
    assert_eq!(verify(chain.as_ref(), &records).unwrap_err().number, 20);
}

#[test]
fn an_audit_entry_is_not_tried_for_ever() {
    let refused = contended(u64::MAX).audit(&entry("us"));
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
}
