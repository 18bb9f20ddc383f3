//! The audit record as a chain: each entry is bound to the one before by a hash (pure).
//!
//! ```text
//! SHA-256( "ringmesh audit 1\n" | hash before, 32 bytes, zeroes for the first | number | when_ms
//!          | bytes of who | who | bytes of what | what )          numbers: 64 bits, big endian
//! ```
//! It shows what was changed, taken out or put in later. Who can write the store can make all of it anew, though,
//! or cut its end off: against that a [`Link`] is kept elsewhere (each is in control's own log).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::records::AuditEntry;

const LABEL: &[u8] = b"ringmesh audit 1\n";

/// An entry's number and hash. As text `NUMBER:HEX`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Counted from 1 since the store was made.
    pub number: u64,
    /// Its hash: 64 hex digits, lower case.
    pub sha256: String,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.sha256)
    }
}

impl FromStr for Link {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "NUMBER:HASH is expected, as `ringmesh audit verify` prints it";
        let (number, sha256) = text.trim().split_once(':').ok_or(wrong)?;
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
        match number.parse() {
            Ok(number) if is_hash => Ok(Self {
                number,
                sha256: sha256.to_ascii_lowercase(),
            }),
            _ => Err(wrong),
        }
    }
}

/// Where the chain begins and ends; written along with each entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Number of the first entry that ever had a hash: those before were written by a version without.
    pub begins: u64,
    /// The last entry that fell off with a hash; the oldest one kept goes on from it.
    pub anchor: Option<Link>,
    /// The newest entry.
    pub head: Link,
}

/// An entry with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Counted from 1 since the store was made.
    pub number: u64,
    /// Who did what.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// Its hash, 64 hex digits; `None`: written by a version without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What was found to be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbroken {
    /// Entries kept that were written by a version without hashes: nothing is known of them.
    pub unchained: u64,
    /// First entry looked at that has a hash, and the last; `None`: there is none.
    pub chained: Option<(u64, Link)>,
    /// What fell off before the first, with its hash.
    pub anchor: Option<Link>,
}

/// The first entry that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub number: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The link of an entry behind the one with hash `before`.
pub(super) fn link(before: Option<&str>, number: u64, entry: &AuditEntry) -> Link {
    let mut hash = Context::new(&SHA256);
    hash.update(LABEL);
    hash.update(&before.and_then(bytes).unwrap_or_default());
    hash.update(&number.to_be_bytes());
    hash.update(&entry.when_ms.to_be_bytes());
    for text in [&entry.who, &entry.what] {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    let sha256 = hash.finish();
    let sha256 = sha256.as_ref().iter().map(|byte| format!("{byte:02x}"));
    Link {
        number,
        sha256: sha256.collect(),
    }
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Goes along the whole chain. `records` is oldest first.
///
/// # Errors
/// The first entry that is not as it was written.
pub fn verify(chain: Option<&Chain>, records: &[AuditRecord]) -> Result<Unbroken, Broken> {
    let broken = |number, why| Err(Broken { number, why });
    let begins = chain.map_or(u64::MAX, |chain| chain.begins);
    let before = records.iter().take_while(|record| record.number < begins);
    let unchained = before.clone().count();
    if let Some(record) = before.clone().find(|record| record.sha256.is_some()) {
        return broken(
            record.number,
            "it has a hash, and the store says that the chain begins later",
        );
    }
    let Some(chain) = chain else {
        return Ok(Unbroken {
            unchained: unchained as u64,
            chained: None,
            anchor: None,
        });
    };
    let anchor = chain.anchor.as_ref();
    if let (Some(_), Some(record)) = (anchor, before.clone().next()) {
        return broken(record.number, "it is there, and should have fallen off");
    }
    let first = anchor.map_or(begins, |anchor| anchor.number.saturating_add(1));
    let mut hash = anchor.map(|anchor| anchor.sha256.as_str());
    let mut wanted = first;
    for record in records.iter().skip(unchained) {
        if record.number != wanted {
            return broken(wanted.min(record.number), "an entry is missing here");
        }
        if record.number > chain.head.number {
            return broken(
                record.number,
                "it stands behind what the store says is the last",
            );
        }
        let Some(sha256) = &record.sha256 else {
            return broken(record.number, "it has no hash");
        };
        if *sha256 != link(hash, record.number, &record.entry).sha256 {
            return broken(
                record.number,
                "its hash is not that of what it says and of the entry before",
            );
        }
        hash = Some(sha256);
        wanted = wanted.saturating_add(1);
    }
    if wanted != chain.head.number.saturating_add(1) {
        return broken(wanted, "it is missing, and all behind it");
    }
    if hash != Some(&chain.head.sha256) {
        return broken(
            chain.head.number,
            "its hash is not the one the store has for the last",
        );
    }
    Ok(Unbroken {
        unchained: unchained as u64,
        chained: Some((first, chain.head.clone())),
        anchor: chain.anchor.clone(),
    })
}

/// Whether an unbroken chain still holds a link that was noted earlier.
///
/// # Errors
/// The entry, and why it does not.
pub fn holds(chain: Option<&Chain>, records: &[AuditRecord], known: &Link) -> Result<(), Broken> {
    let number = known.number;
    let broken = |why| Err(Broken { number, why });
    let anchor = chain.and_then(|chain| chain.anchor.as_ref());
    if anchor == Some(known) {
        return Ok(());
    }
    if anchor.is_some_and(|anchor| number < anchor.number) {
        return broken("it has fallen off, so nothing can be said: note a newer one");
    }
    let found = records.iter().find(|record| record.number == number);
    match found.map(|record| record.sha256.as_ref()) {
        Some(Some(sha256)) if *sha256 == known.sha256 => Ok(()),
        Some(_) => broken("its hash is not the one that was noted"),
        None => broken("it is not there any more"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(who: &str, what: &str) -> AuditEntry {
        AuditEntry {
            when_ms: 1,
            who: who.into(),
            what: what.into(),
        }
    }

    /// Entries 1 to `count`; those before `begins` without a hash, and the first `gone` fallen off.
    fn written(count: u64, begins: u64, gone: u64) -> (Chain, Vec<AuditRecord>) {
        let mut all: Vec<AuditRecord> = Vec::new();
        let mut links: Vec<Link> = Vec::new();
        for number in 1..=count {
            let entry = entry("root", &format!("token create n{number}"));
            let sha256 = (number >= begins).then(|| {
                let before = links.last().map(|link| link.sha256.as_str());
                links.push(link(before, number, &entry));
                links[links.len() - 1].sha256.clone()
            });
            all.push(AuditRecord {
                number,
                entry,
                sha256,
            });
        }
        let chain = Chain {
            begins,
            anchor: links.iter().find(|link| link.number == gone).cloned(),
            head: links[links.len() - 1].clone(),
        };
        all.retain(|record| record.number > gone);
        (chain, all)
    }

    #[test]
    fn the_encoding_is_the_one_that_is_written_down() {
        use aws_lc_rs::digest::digest;
        let mut bytes = b"ringmesh audit 1\n".to_vec();
        bytes.extend([0; 32]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend(b"\0\0\0\0\0\0\0\x04root\0\0\0\0\0\0\0\x02do");
        let by_hand = digest(&SHA256, &bytes);
        let by_hand: String = by_hand
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let first = link(None, 7, &entry("root", "do"));
        assert_eq!(first.to_string(), format!("7:{by_hand}"));
        assert_eq!(first.to_string().parse(), Ok(first.clone()));
        // The hash before counts, and what is who's is not what's.
        let second = link(Some(&first.sha256), 7, &entry("root", "do"));
        assert_ne!(first, second);
        assert_ne!(first, link(None, 7, &entry("rootd", "o")));
        for wrong in [
            "7",
            "7:12",
            "x:",
            ":",
            "-1:00",
            &format!("7:{}g", "0".repeat(63)),
        ] {
            assert!(wrong.parse::<Link>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_chain_as_it_was_written_is_unbroken() {
        for (count, begins, gone, unchained) in [
            (1, 1, 0, 0),
            (9, 1, 0, 0),
            (9, 4, 0, 3),
            (9, 4, 2, 1),
            (9, 4, 3, 0),
            (9, 1, 8, 0),
        ] {
            let (chain, records) = written(count, begins, gone);
            let found = verify(Some(&chain), &records).unwrap();
            assert_eq!(found.unchained, unchained, "{begins} {gone}");
            let first = begins.max(gone + 1);
            assert_eq!(found.chained, Some((first, chain.head.clone())));
            assert_eq!(found.anchor.is_some(), gone >= begins);
        }
        let found = verify(None, &[]).unwrap();
        assert_eq!((found.unchained, found.chained), (0, None));
        let (_, old) = written(3, 3, 0);
        assert_eq!(verify(None, &old[..2]).unwrap().unchained, 2);
        assert_eq!(verify(None, &old).unwrap_err().number, 3);
    }

    #[test]
    fn a_link_that_was_noted_is_found_again_or_missed() {
        let (chain, records) = written(9, 1, 3);
        let at = |number: u64| {
            let (_, all) = written(9, 1, 0);
            Link {
                number,
                sha256: all[number as usize - 1].sha256.clone().unwrap(),
            }
        };
        for number in 3..=9 {
            assert_eq!(holds(Some(&chain), &records, &at(number)), Ok(()));
        }
        assert!(
            holds(Some(&chain), &records, &at(2))
                .unwrap_err()
                .why
                .contains("fallen off")
        );
        let other = Link {
            sha256: "00".repeat(32),
            ..at(5)
        };
        assert!(holds(Some(&chain), &records, &other).is_err());
        // Cut off and made to look whole: only who noted the end knows.
        let (shorter, fewer) = written(8, 1, 3);
        verify(Some(&shorter), &fewer).unwrap();
        assert!(
            holds(Some(&shorter), &fewer, &at(9))
                .unwrap_err()
                .why
                .contains("not there")
        );
    }

    proptest! {
        /// Whatever is done to one entry, it is the first that is told; or the one behind it.
        #[test]
        fn whatever_is_changed_is_found(
            count in 2_u64..20,
            begins in 1_u64..4,
            gone in 0_u64..4,
            at in any::<prop::sample::Index>(),
            how in 0_usize..8,
        ) {
            let begins = begins.min(count - 1);
            let gone = gone.min(count - 2);
            let (mut chain, mut records) = written(count, begins, gone);
            let first = records.iter().position(|record| record.sha256.is_some()).unwrap();
            let at = first + at.index(records.len() - first);
            let number = records[at].number;
            match how {
                0 => records[at].entry.what.push('x'),
                1 => records[at].entry.who = "nobody".into(),
                2 => records[at].entry.when_ms += 1,
                3 => { records.remove(at); }
                4 => records[at].sha256 = None,
                5 => records[at].sha256 = Some("ab".repeat(32)),
                6 => {
                    // Made anew by itself: it fits what is before, and what is behind does not fit it.
                    records[at].entry.what = "nothing".into();
                    let before = match at {
                        0 => chain.anchor.as_ref().map(|anchor| anchor.sha256.clone()),
                        _ => records[at - 1].sha256.clone(),
                    };
                    let anew = link(before.as_deref(), number, &records[at].entry);
                    records[at].sha256 = Some(anew.sha256);
                }
                _ => {
                    let twice = records[at].clone();
                    records.insert(at, twice);
                }
            }
            let found = verify(Some(&chain), &records).unwrap_err();
            let wanted = match how {
                6 if number < count => number + 1,
                _ => number,
            };
            if how != 7 {
                prop_assert_eq!(found.number, wanted, "{}", found.why);
            }
            // What the store says of itself does not help.
            chain.begins = number + 1;
            if how < 3 && number < count && chain.anchor.is_none() {
                prop_assert!(verify(Some(&chain), &records).is_err());
            }
        }
    }
}
