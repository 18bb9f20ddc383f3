//! What the names of endpoints lead to: asked in the background, put into tables like a change of
//! endpoints.

use super::*;
use ringmesh_wire::limits::{RESOLVED_ADDRESSES_MAX, RESOLVED_NAMES_MAX};
use ringmesh_wire::session::ResolvedName;

use crate::admin::NameRow;
use crate::agent::names::ask;
use crate::agent::names::book::{Book, Lookup, NAMES_MAX, Refresh};
use crate::agent::names::message::ADDRESSES_MAX;
use crate::settings::Dns;

/// How long the first answers may hold readiness back. Without them the names' services answer 503;
/// the others are not to wait for a name server that is gone.
const FIRST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Changes so close together are one change of tables: the names of a mesh are often asked together.
const GATHER: Duration = Duration::from_millis(100);
/// Tables are built anew for changed addresses no more often.
const REBUILT_EVERY: Duration = Duration::from_secs(1);
/// Lookups that have ended and are not yet looked at: no more than are under way.
const ENDED_MAX: usize = 64;

const _: () = assert!(
    NAMES_MAX <= RESOLVED_NAMES_MAX && 2 * ADDRESSES_MAX <= RESOLVED_ADDRESSES_MAX,
    "what is known of all names fits one message to control"
);

/// The agent's part of name resolution.
pub(super) struct Names {
    servers: Vec<SocketAddr>,
    pub(super) book: Book,
    /// When tables with other addresses are due.
    rebuild_at: Option<Instant>,
    rebuilt: Option<Instant>,
    /// Until then the first answers are waited for.
    awaited_until: Option<Instant>,
    ended: mpsc::Sender<(String, Lookup)>,
    /// What control was told last.
    told: Vec<ResolvedName>,
}

impl Names {
    pub(super) fn new(dns: &Dns) -> (Self, mpsc::Receiver<(String, Lookup)>) {
        let (ended, ended_queue) = mpsc::channel(ENDED_MAX);
        let names = Self {
            servers: dns.servers.clone(),
            book: Book::new(Refresh {
                min: dns.refresh_min,
                max: dns.refresh_max,
            }),
            rebuild_at: None,
            rebuilt: None,
            awaited_until: None,
            ended,
            told: Vec::new(),
        };
        (names, ended_queue)
    }
}

impl Agent {
    /// A configuration is being published: its names are the ones from now on.
    pub(super) fn track_names(&mut self, snapshot: &Snapshot) {
        let sections = snapshot.sections.iter();
        let all: Vec<_> = sections
            .filter(|section| section.key.kind == SectionKind::Names)
            // The tables were built of them.
            .filter_map(|section| match section.open() {
                Ok(Body::Names(names)) => Some(names),
                _ => None,
            })
            .collect();
        self.names.book.track(all.iter().flat_map(|names| {
            let ordered = names.resolution == Resolution::One;
            names
                .endpoints
                .iter()
                .map(move |named| (named.name.as_str(), ordered))
        }));
        match self.names.book.untracked() {
            0 => {}
            more => tracing::error!(
                more,
                "more names than a sidecar resolves: the services of the last ones answer 503"
            ),
        }
        // What was built knows all answers there are.
        self.names.rebuild_at = None;
        if !self.ready_told && self.names.awaited_until.is_none() && !self.names.book.settled() {
            self.names.awaited_until = Some(Instant::now() + FIRST_ANSWERS_WITHIN);
            self.board.face().names_awaited = true;
        }
        self.ask_for_names();
        self.show_names();
    }

    /// Asks for every name that is due.
    pub(super) fn ask_for_names(&mut self) {
        let due = self.names.book.due(self.now());
        if due.is_empty() {
            return;
        }
        let servers = match self.names.servers.is_empty() {
            // Read again, so that a host that moves to another network takes its sidecars along.
            true => ask::servers_of(Path::new("/etc/resolv.conf")),
            false => self.names.servers.clone(),
        };
        for name in due {
            let (servers, ended) = (servers.clone(), self.names.ended.clone());
            tokio::spawn(async move {
                let lookup = ask::lookup(&servers, &name, unguessable).await;
                let _ = ended.send((name, lookup)).await;
            });
        }
    }

    /// A lookup has ended.
    pub(super) fn name_answered(&mut self, name: &str, lookup: Lookup) {
        let changed = (self.names.book).answered(name, lookup, self.now(), fastrand::u64(..));
        if changed {
            let soonest = Instant::now() + GATHER;
            let next = self.names.rebuilt.map_or(soonest, |at| at + REBUILT_EVERY);
            self.names.rebuild_at.get_or_insert(soonest.max(next));
        }
        self.ask_for_names();
        self.show_names();
        self.tend_names();
    }

    /// Does what is due by the clock or by what has come.
    pub(super) fn tend_names(&mut self) {
        let now = Instant::now();
        let all_known = self.names.awaited_until.is_some() && self.names.book.settled();
        if let Some(at) = self.names.rebuild_at
            && (at <= now || all_known)
        {
            self.names.rebuild_at = None;
            self.names.rebuilt = Some(now);
            self.publish_addresses();
        }
        if let Some(until) = self.names.awaited_until {
            let in_force = self.names.rebuild_at.is_none() && self.publishing.is_none();
            if now >= until || (all_known && in_force) {
                self.names.awaited_until = None;
                self.board.face().names_awaited = false;
                self.tell_ready();
            }
        }
        self.ask_for_names();
    }

    /// How long nothing is due by the clock.
    pub(super) fn names_nap(&self) -> Option<Duration> {
        let now = Instant::now();
        let ask = self.names.book.next().map(|at| at.since(self.now()));
        let at = [self.names.rebuild_at, self.names.awaited_until];
        let due = at.into_iter().flatten();
        due.map(|at| at.saturating_duration_since(now))
            .chain(ask)
            .min()
    }

    /// The same configuration, with other addresses.
    fn publish_addresses(&mut self) {
        // One that is just coming into force comes with them.
        let (snapshot, origin) = match &self.publishing {
            Some((snapshot, origin)) => (Arc::clone(snapshot), *origin),
            None => {
                let in_force = self.board.face().snapshot.clone();
                let Some(snapshot) = in_force else { return };
                (snapshot, Origin::Names)
            }
        };
        match self.publisher.begin(&snapshot, &self.names.book.answers()) {
            Ok(tables) => {
                self.publishing = Some((snapshot, origin));
                self.doors.send_all(&ToShard::Config(tables));
            }
            // The very same sections were good before.
            Err(why) => tracing::error!(%why, "no tables with the names' new addresses"),
        }
    }

    /// For control, where it has changed: as often as lookups end at most, one datagram or two each.
    fn tell_names(&mut self) {
        let rows = self.names.book.rows().map(|(name, row)| ResolvedName {
            name: name.to_owned(),
            addresses: row.addresses,
            trouble: row
                .fault
                .map_or(String::new(), |fault| fault.code().to_owned()),
        });
        let names: Vec<_> = rows.collect();
        if names != self.names.told {
            self.names.told.clone_from(&names);
            self.tell_session(Input::Names(names));
        }
    }

    /// For `/endpoints` and `/metrics`.
    fn show_names(&mut self) {
        self.tell_names();
        let book = &self.names.book;
        let now = self.now();
        let rows = book.rows().map(|(name, row)| {
            let shown = NameRow {
                addresses: row.addresses,
                confirmed: row
                    .confirmed
                    .and_then(|at| Instant::now().checked_sub(now.since(at))),
                failures: row.failures,
                trouble: row.fault.map(|fault| fault.code()),
            };
            (name.to_owned(), shown)
        });
        let rows = rows.collect();
        self.board.face().names = rows;
        let (good, faults) = book.lookups();
        self.figures.name_lookups = good;
        self.figures.name_faults.clone_from(faults);
        self.figures.names = book.tally();
    }
}

/// From the same source as TLS keys.
fn unguessable() -> u16 {
    let mut bytes = [0; 2];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match provider.secure_random.fill(&mut bytes) {
        Ok(()) => u16::from_ne_bytes(bytes),
        Err(_) => fastrand::u16(..),
    }
}
