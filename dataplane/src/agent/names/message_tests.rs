use std::cell::RefCell;

use proptest::prelude::*;

use super::super::fake_server::{Asked, Says};
use super::*;

const ID: u16 = 0x1234;

fn question(family: Family) -> Question {
    Question::new("api.example.com", family, ID).unwrap()
}

/// What `question` makes of the answer that `answer` gives it.
fn said(family: Family, answer: impl Fn(&Asked<'_>) -> Vec<u8>) -> Said {
    let question = question(family);
    question.read(&answer(&asked(&question)))
}

fn asked(question: &Question) -> Asked<'_> {
    let message = Message::from_slice(question.bytes()).unwrap();
    Asked {
        message,
        name: "api.example.com".into(),
        rtype: message.sole_question().unwrap().qtype(),
        over_tcp: false,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> Says {
    Says::At(ip(text))
}

fn found(said: Said) -> Result<(Vec<String>, u64), Fault> {
    match said {
        Said::Answer(answer) => answer.map(|found| {
            let addresses = found.addresses.iter().map(ToString::to_string);
            (addresses.collect(), found.ttl.as_secs())
        }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_are_those_of_the_name_through_its_aliases() {
    const NAME: &str = "api.example.com";
    let v4 = |last| Says::At(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
    let ok = |all: &[&'static str], ttl: u64| Ok((all.to_vec(), ttl));
    let cases = [
        (vec![], Err(Fault::NoAddress)),
        (
            vec![(NAME, v4(1), 30), (NAME, v4(2), 20), (NAME, v4(1), 9)],
            ok(&["192.0.2.1", "192.0.2.2"], 9),
        ),
        // Names are compared without case (RFC 4343).
        (vec![("API.Example.COM", v4(1), 30)], ok(&["192.0.2.1"], 30)),
        // Through two aliases, in whatever order, with the shortest time to live.
        (
            vec![
                ("c.example.net", v4(7), 60),
                ("b.example.net", Says::Alias("c.example.net"), 5),
                (NAME, Says::Alias("b.example.net"), 90),
            ],
            ok(&["192.0.2.7"], 5),
        ),
        // Of somebody else: not asked for, not believed.
        (
            vec![("evil.example.org", v4(66), 60)],
            Err(Fault::NoAddress),
        ),
        (
            vec![(NAME, Says::Alias("b.example.net"), 9), (NAME, v4(1), 9)],
            Err(Fault::NoAddress),
        ),
        // A ring of aliases.
        (
            vec![
                (NAME, Says::Alias("b.example.net"), 9),
                ("b.example.net", Says::Alias(NAME), 9),
            ],
            Err(Fault::NoAddress),
        ),
        // Where nobody can stand.
        (
            vec![
                (NAME, at("0.0.0.0"), 9),
                (NAME, at("255.255.255.255"), 9),
                (NAME, at("224.0.0.1"), 9),
            ],
            Err(Fault::BadAddress),
        ),
        (
            vec![(NAME, at("0.0.0.0"), 1), (NAME, v4(1), 9)],
            ok(&["192.0.2.1"], 9),
        ),
        // RFC 2181 section 8.
        (vec![(NAME, v4(1), 0x8000_0000)], ok(&["192.0.2.1"], 0)),
    ];
    for (records, wanted) in cases {
        let got = found(said(Family::V4, |asked| asked.records(&records)));
        let wanted = wanted.map(|(all, ttl)| (all.iter().map(|a| (*a).to_owned()).collect(), ttl));
        assert_eq!(got, wanted, "{records:?}");
    }
    let v6 = [
        (NAME, at("fd00::1"), 9),
        (NAME, at("::"), 9),
        (NAME, at("ff02::1"), 9),
        (NAME, at("::ffff:0.0.0.0"), 9),
        (NAME, v4(1), 9),
    ];
    let got = found(said(Family::V6, |asked| asked.records(&v6)));
    assert_eq!(got, Ok((vec!["fd00::1".to_owned()], 9)));
}

#[test]
fn of_many_addresses_the_first_are_taken() {
    let many: Vec<String> = (1..=100).map(|last| format!("192.0.2.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (got, _) = found(said(Family::V4, |asked| asked.addresses(&many, 9))).unwrap();
    assert_eq!(got, many[..ADDRESSES_MAX]);
}

#[test]
fn refusals_are_told_apart() {
    for (rcode, fault) in [
        (Rcode::NXDOMAIN, Fault::NoName),
        (Rcode::SERVFAIL, Fault::ServerFailed),
        (Rcode::REFUSED, Fault::ServerFailed),
        (Rcode::FORMERR, Fault::ServerFailed),
        (Rcode::NOTIMP, Fault::ServerFailed),
    ] {
        let got = found(said(Family::V4, |asked| asked.code(rcode)));
        assert_eq!(got, Err(fault), "{rcode}");
    }
    assert_eq!(said(Family::V4, |asked| asked.truncated()), Said::Truncated);
}

#[test]
fn what_is_no_answer_to_this_question_says_nothing() {
    let good = |asked: &Asked<'_>| asked.addresses(&["192.0.2.1"], 9);
    let damaged = |at: usize, bits: u8| {
        said(Family::V4, |asked| {
            let mut bytes = good(asked);
            bytes[at] ^= bits;
            bytes
        })
    };
    assert_eq!(damaged(0, 1), Said::Nothing, "another id");
    assert_eq!(damaged(2, 0x80), Said::Nothing, "a question");
    assert_eq!(damaged(2, 0x10), Said::Nothing, "another operation");
    assert_eq!(damaged(5, 1), Said::Nothing, "no question in it");
    assert_eq!(damaged(14, 1), Said::Nothing, "another name");
    let other_family = said(Family::V4, |_| good(&asked(&question(Family::V6))));
    assert_eq!(other_family, Said::Nothing, "another family");
    let short = said(Family::V4, |asked| good(asked)[..11].to_vec());
    assert_eq!(short, Said::Nothing);
}

#[test]
fn names_that_cannot_be_asked_for_are_refused() {
    let long = format!("{}.example", "a".repeat(64));
    let longer = vec!["abcdefgh"; 40].join(".");
    for name in ["", ".a", "a..b", &long, &longer] {
        // The root is a name; nobody's.
        let question = Question::new(name, Family::V4, ID);
        assert!(question.is_err() || name.is_empty(), "{name:?}");
    }
}

thread_local! {
    static GOOD: RefCell<Vec<u8>> = RefCell::new({
        let question = question(Family::V4);
        asked(&question).records(&[
            ("api.example.com", Says::Alias("b.example.net"), 9),
            ("b.example.net", Says::At(Ipv4Addr::new(192, 0, 2, 1).into()), 9),
        ])
    });
}

#[test]
fn an_answer_cut_anywhere_is_malformed_or_says_nothing() {
    let question = question(Family::V4);
    let good = GOOD.with_borrow(Clone::clone);
    for end in 0..good.len() {
        let said = question.read(&good[..end]);
        let harmless = matches!(said, Said::Nothing | Said::Answer(Err(Fault::Malformed)));
        assert!(harmless, "cut at {end}: {said:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = question(Family::V4).read(&bytes);
        // Behind a header and question that fit.
        let good = GOOD.with_borrow(|good| good[..33].to_vec());
        let _ = question(Family::V4).read(&[good, bytes].concat());
    }

    #[test]
    fn damaged_answers_never_panic(at in any::<prop::sample::Index>(), with in any::<[u8; 3]>()) {
        let mut bytes = GOOD.with_borrow(Clone::clone);
        let at = 12 + at.index(bytes.len() - 15);
        bytes[at..at + 3].copy_from_slice(&with);
        let said = question(Family::V4).read(&bytes);
        if let Said::Answer(Ok(found)) = said {
            prop_assert!(found.addresses.len() <= ADDRESSES_MAX);
            prop_assert!(found.addresses.iter().all(|to| to.is_ipv4()));
        }
    }
}
