use proptest::prelude::*;

use super::*;

const REFRESH: Refresh = Refresh {
    min: Duration::from_secs(5),
    max: Duration::from_secs(60),
};

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000_000)
}

fn ips(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn found(all: &[&str], ttl: u64) -> Result<Found, Fault> {
    Ok(Found {
        addresses: ips(all),
        ttl: Duration::from_secs(ttl),
    })
}

fn v4(all: &[&str], ttl: u64) -> Lookup {
    Lookup {
        v4: found(all, ttl),
        v6: Err(Fault::NoAddress),
    }
}

fn failed(fault: Fault) -> Lookup {
    Lookup {
        v4: Err(fault),
        v6: Err(fault),
    }
}

fn book(names: &[&str]) -> Book {
    let mut book = Book::new(REFRESH);
    book.track(names.iter().map(|name| (*name, false)));
    book
}

/// Asks for the only name, now, and has it answered.
fn ask(book: &mut Book, lookup: Lookup, now: Mono) -> bool {
    assert_eq!(book.due(now), ["a"], "at {now:?}");
    book.answered("a", lookup, now, 0)
}

fn addresses(book: &Book) -> Vec<IpAddr> {
    book.answers()
        .of("a")
        .map_or_else(Vec::new, |a| a.list.clone())
}

#[test]
fn a_name_is_asked_again_when_its_time_to_live_is_over_within_bounds() {
    for (ttl, again) in [(0, 5), (1, 5), (7, 7), (60, 60), (86_400, 60)] {
        let mut book = book(&["a"]);
        assert_eq!(book.next(), Some(Mono(0)), "a new one at once");
        assert!(!book.settled());
        assert!(ask(&mut book, v4(&["10.0.0.1"], ttl), at(100)));
        assert!(book.settled());
        assert_eq!(book.next(), Some(at(100 + again)), "ttl {ttl}");
        assert!(
            book.due(at(100 + again) - Duration::from_nanos(1))
                .is_empty()
        );
        assert_eq!(book.due(at(100 + again)), ["a"]);
    }
}

#[test]
fn the_wait_is_up_to_a_tenth_longer_by_chance() {
    let mut book = book(&["a"]);
    book.due(at(0));
    book.answered("a", v4(&["10.0.0.1"], 10), at(0), u64::MAX);
    let next = book.next().unwrap();
    assert!(next > at(10) && next <= at(11), "{next:?}");
}

#[test]
fn the_last_good_answer_stays_while_lookups_fail_more_and_more_seldom() {
    let mut book = book(&["a"]);
    ask(&mut book, v4(&["10.0.0.1"], 5), at(0));
    let mut now = at(5);
    for wait in [5, 10, 20, 30, 30, 30] {
        assert!(!ask(&mut book, failed(Fault::Timeout), now));
        assert_eq!(addresses(&book), ips(&["10.0.0.1"]));
        now = now + Duration::from_secs(wait);
        assert_eq!(book.next(), Some(now));
    }
    let (_, row) = book.rows().next().unwrap();
    assert_eq!((row.failures, row.fault), (6, Some(Fault::Timeout)));
    assert_eq!(row.confirmed, Some(at(0)));
    assert_eq!(book.tally().stale, 1);
    assert!(ask(&mut book, v4(&["10.0.0.2"], 5), now));
    assert_eq!(addresses(&book), ips(&["10.0.0.2"]));
    assert_eq!(book.tally().resolved, 1);
}

#[test]
fn a_denial_is_believed_the_third_time() {
    for fault in [Fault::NoName, Fault::NoAddress, Fault::BadAddress] {
        let mut book = book(&["a"]);
        ask(&mut book, v4(&["10.0.0.1"], 5), at(0));
        assert!(!ask(&mut book, failed(fault), at(100)));
        assert!(!ask(&mut book, failed(fault), at(200)));
        // One failure between starts the count anew: it may be the same trouble.
        assert!(!ask(&mut book, failed(Fault::ServerFailed), at(300)));
        assert!(!ask(&mut book, failed(fault), at(400)));
        assert!(!ask(&mut book, failed(fault), at(500)));
        assert!(ask(&mut book, failed(fault), at(600)));
        assert_eq!(book.answers(), Answers::default());
        assert_eq!(book.tally().unresolved, 1);
    }
}

#[test]
fn families_take_turns_and_one_that_fails_stands_as_it_was() {
    let mut book = book(&["a"]);
    let both = Lookup {
        v4: found(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], 50),
        v6: found(&["fd00::1", "fd00::2"], 40),
    };
    ask(&mut book, both, at(0));
    let all = ["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "10.0.0.3"];
    assert_eq!(addresses(&book), ips(&all));
    assert_eq!(book.next(), Some(at(40)), "the shorter time to live counts");
    let half = Lookup {
        v4: found(&["10.0.0.9"], 50),
        v6: Err(Fault::Timeout),
    };
    assert!(ask(&mut book, half, at(40)));
    assert_eq!(addresses(&book), ips(&["fd00::1", "10.0.0.9", "fd00::2"]));
    assert_eq!(
        book.next(),
        Some(at(45)),
        "the other half is asked for soon"
    );
    // A family that is denied while the other is there is gone at once.
    assert!(ask(&mut book, v4(&["10.0.0.9"], 50), at(45)));
    assert_eq!(addresses(&book), ips(&["10.0.0.9"]));
}

#[test]
fn another_order_is_a_change_only_where_it_matters() {
    let mut book = book(&["a"]);
    assert!(ask(&mut book, v4(&["10.0.0.1", "10.0.0.2"], 5), at(0)));
    assert!(!ask(&mut book, v4(&["10.0.0.2", "10.0.0.1"], 5), at(10)));
    book.track([("a", true)]);
    assert!(ask(&mut book, v4(&["10.0.0.1", "10.0.0.2"], 5), at(20)));
    assert!(!ask(&mut book, v4(&["10.0.0.1", "10.0.0.2"], 5), at(30)));
    let answers = book.answers();
    assert_eq!(answers.of("a").unwrap().anchor, ips(&["10.0.0.1"])[0]);
    // The anchor stays, whatever the addresses become.
    assert!(ask(&mut book, v4(&["10.0.0.3"], 5), at(40)));
    let answers = book.answers();
    assert_eq!(answers.of("a").unwrap().anchor, ips(&["10.0.0.1"])[0]);
    assert_eq!(answers.of("a").unwrap().list, ips(&["10.0.0.3"]));
}

#[test]
fn names_that_stay_keep_what_is_known_and_others_are_forgotten() {
    let mut book = book(&["a", "b"]);
    assert_eq!(book.due(at(0)), ["a", "b"]);
    assert!(book.answered("a", v4(&["10.0.0.1"], 50), at(0), 0));
    // b is still being asked when it goes, and comes back.
    book.track([("a", false)]);
    assert!(!book.answered("b", v4(&["10.0.0.2"], 50), at(1), 0));
    assert_eq!(addresses(&book), ips(&["10.0.0.1"]));
    book.track([("a", false), ("b", false)]);
    assert_eq!(book.due(at(2)), ["b"]);
}

#[test]
fn so_many_names_and_so_many_at_once_and_no_more() {
    let names: Vec<String> = (0..2_000).map(|at| format!("n{at:04}")).collect();
    let mut book = Book::new(REFRESH);
    book.track(names.iter().map(|name| (name.as_str(), false)));
    assert_eq!(book.untracked(), 2_000 - NAMES_MAX);
    assert_eq!(book.tally().unresolved, 2_000);
    let first = book.due(at(0));
    assert_eq!(first.len(), ASKED_AT_ONCE_MAX);
    assert!(book.due(at(0)).is_empty());
    assert_eq!(book.next(), None, "an answer is waited for");
    book.answered(&first[0], v4(&["10.0.0.1"], 50), at(0), 0);
    assert_eq!(book.due(at(0)).len(), 1);
}

#[test]
fn lookups_are_counted_by_their_end() {
    let mut book = book(&["a"]);
    ask(&mut book, failed(Fault::Timeout), at(0));
    ask(&mut book, v4(&["10.0.0.1"], 5), at(100));
    let mixed = Lookup {
        v4: Err(Fault::NoAddress),
        v6: Err(Fault::Malformed),
    };
    ask(&mut book, mixed, at(200));
    let (good, faults) = book.lookups();
    assert_eq!(good, 1);
    let wanted = BTreeMap::from([(Fault::Timeout, 1), (Fault::Malformed, 1)]);
    assert_eq!(*faults, wanted);
}

#[derive(Debug, Clone)]
enum Step {
    Track(BTreeSet<u8>),
    Later(u64),
    Ask,
    Answer(u8, Result<BTreeSet<u8>, bool>, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let set = || proptest::collection::btree_set(0..6_u8, 0..6);
    prop_oneof![
        set().prop_map(Step::Track),
        (0..100_u64).prop_map(Step::Later),
        Just(Step::Ask),
        (0..6_u8, set(), 0..100_u64).prop_map(|(n, a, ttl)| Step::Answer(n, Ok(a), ttl)),
        (0..6_u8, any::<bool>()).prop_map(|(n, denied)| Step::Answer(n, Err(denied), 0)),
    ]
}

proptest! {
    /// No name is asked twice at once, or sooner than allowed; the count of those under way is right;
    /// an answer is never lost to a failure.
    #[test]
    fn whatever_happens_its_promises_hold(steps in proptest::collection::vec(step(), 1..80)) {
        let mut book = Book::new(REFRESH);
        let mut now = at(1);
        let mut asking: BTreeSet<String> = BTreeSet::new();
        let mut ended: BTreeMap<String, Mono> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Track(names) => {
                    let names: Vec<String> = names.iter().map(u8::to_string).collect();
                    book.track(names.iter().map(|name| (name.as_str(), false)));
                    asking.retain(|name| names.contains(name));
                    ended.retain(|name, _| names.contains(name));
                }
                Step::Later(seconds) => now = now + Duration::from_secs(seconds),
                Step::Ask => for name in book.due(now) {
                    if let Some(ended) = ended.get(&name) {
                        prop_assert!(now.since(*ended) >= REFRESH.min);
                    }
                    prop_assert!(asking.insert(name), "asked twice at once");
                },
                Step::Answer(name, what, ttl) => {
                    let name = name.to_string();
                    let before = book.answers();
                    let found: Vec<String> = what.iter().flatten().map(|n| format!("10.0.0.{n}")).collect();
                    let found: Vec<&str> = found.iter().map(String::as_str).collect();
                    let lookup = match what {
                        Ok(_) if found.is_empty() => failed(Fault::NoAddress),
                        Ok(_) => v4(&found, ttl),
                        Err(true) => failed(Fault::NoName),
                        Err(false) => failed(Fault::Timeout),
                    };
                    let timeout = what == Err(false);
                    let changed = book.answered(&name, lookup, now, 0);
                    let was_asking = asking.remove(&name);
                    prop_assert!(was_asking || !changed);
                    prop_assert_eq!(changed, book.answers() != before);
                    prop_assert!(!(timeout && changed));
                    if was_asking {
                        ended.insert(name, now);
                    }
                }
            }
            prop_assert_eq!(book.asked, asking.len());
        }
    }
}
