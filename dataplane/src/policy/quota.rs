//! The quota step: dimensions evaluated, charged to this shard's cells.
//!
//! The counting itself is `ringmesh_quota::Cells`; this file knows expressions and tables, that one
//! knows units and leases.

use std::borrow::Cow;

use ringmesh_quota::{CellState, Cells, FromCells, Home, Memo, ToCells, Verdict};

use super::attributes::{Attributes, Val};
use super::check::{Notes, QuotaStep};
use super::expr;
use crate::tables::{Generation, QuotaIndex, QuotaRow, Site, Stays, Tables};
use crate::time::Mono;

/// Dimensions of one rule; the wire format allows no more.
const DIMENSIONS_MAX: usize = ringmesh_wire::limits::LEASE_DIMENSIONS_MAX;

/// This shard's units of every quota.
#[derive(Debug)]
pub struct QuotaCells {
    cells: Cells,
    installed: Option<Generation>,
    /// What callers found that nobody told apart, by site: [`SHARED_MEMOS`] places, one may push
    /// another out.
    shared: Box<[QuotaMemo]>,
}

/// Sites whose cells are remembered across connections; a power of two.
const SHARED_MEMOS: usize = 32;

impl QuotaCells {
    /// Without rules. `seed` is random per process.
    #[must_use]
    pub fn new(home: Home, seed: u64) -> Self {
        Self {
            cells: Cells::new(home, seed),
            installed: None,
            shared: (0..SHARED_MEMOS).map(|_| QuotaMemo::default()).collect(),
        }
    }

    /// Takes new tables into force; counts of unchanged rules stay.
    pub fn swap(&mut self, tables: &Tables, now: Mono) {
        let rules = tables.quotas().iter().map(|row| &row.rule);
        self.cells
            .install(rules, tables.mesh.on_quota_unavailable, now.0);
        self.installed = Some(tables.generation());
    }

    /// Takes a message of the agent.
    pub fn handle(&mut self, message: ToCells, now: Mono) {
        self.cells.handle(message, now.0);
    }

    /// Ends leases and gives back what is idle; to be called when [`Self::next_tick`] says.
    pub fn tick(&mut self, now: Mono) {
        self.cells.tick(now.0);
    }

    /// When [`Self::tick`] has something to do; [`Mono::NEVER`] while nothing can change by itself.
    /// Looks at every bucket: for after ticks, messages and configurations.
    #[must_use]
    pub fn next_tick(&mut self, now: Mono) -> Mono {
        self.cells.next_tick(now.0).map_or(Mono::NEVER, Mono)
    }

    /// Whether a bucket was made since this was asked last, so that a tick may be due in
    /// [`TICK_MS_MIN`](ringmesh_quota::TICK_MS_MIN).
    pub fn has_new_bucket(&mut self) -> bool {
        self.cells.has_new_bucket()
    }

    /// The next message for the agent.
    pub fn poll(&mut self) -> Option<FromCells> {
        self.cells.poll()
    }

    /// Every bucket, for people.
    #[must_use]
    pub fn state(&mut self) -> Vec<CellState> {
        self.cells.state()
    }
}

impl QuotaStep for QuotaCells {
    fn charge(
        &mut self,
        tables: &Tables,
        rules: &[QuotaIndex],
        attributes: &Attributes<'_>,
        now: Mono,
        notes: &mut Notes,
    ) -> Result<(), QuotaIndex> {
        self.charge_noting(tables, rules, attributes, now, notes, None)
    }
}

/// The quota step of one connection: its peer does not change, so rules that look at nothing else
/// find their cells once. Where the caller is the same for all connections (the local app, or
/// whoever proved nothing) and the rules do not look at addresses, once for all of them.
#[derive(Debug)]
pub struct OfConnection<'c> {
    /// The shard's units.
    pub cells: &'c mut QuotaCells,
    /// What this connection found before.
    pub memo: &'c mut QuotaMemo,
    /// Where the call is judged.
    pub site: Site,
}

/// What a connection found: good for one configuration, one site, and for requests or not.
#[derive(Debug, Default)]
pub struct QuotaMemo {
    of: Option<(Generation, Site, bool)>,
    memo: Memo,
}

impl QuotaStep for OfConnection<'_> {
    fn charge(
        &mut self,
        tables: &Tables,
        rules: &[QuotaIndex],
        attributes: &Attributes<'_>,
        now: Mono,
        notes: &mut Notes,
    ) -> Result<(), QuotaIndex> {
        let is_request = attributes.request.is_some();
        let of = (tables.generation(), self.site, is_request);
        if self.cells.installed != Some(of.0) {
            return self
                .cells
                .charge_noting(tables, rules, attributes, now, notes, None);
        }
        let anybody = matches!(self.site, Site::Outbound(_)) || attributes.source.is_none();
        let place = anybody.then(|| self.site.number() % SHARED_MEMOS);
        let shared = place.and_then(|at| self.cells.shared.get(at));
        let known = [shared, Some(&*self.memo)];
        for memo in known.into_iter().flatten() {
            if memo.of != Some(of) {
                continue;
            }
            match self.cells.cells.again(&memo.memo, now.0) {
                Some(Verdict::Admit) => {
                    notes.charged = memo.memo.charges() > 0;
                    return Ok(());
                }
                Some(Verdict::Exhausted { rule } | Verdict::Full { rule }) => {
                    return Err(QuotaIndex::of(rule));
                }
                None => {}
            }
        }
        let stays = rules.iter().map(|at| tables.quota(*at).stays).min();
        let stays = stays.unwrap_or(Stays::ForCaller);
        if stays == Stays::ForRequest {
            return self
                .cells
                .charge_noting(tables, rules, attributes, now, notes, None);
        }
        let shared = place.filter(|_| stays == Stays::ForCaller);
        let mut memo = match shared {
            Some(at) => std::mem::take(&mut self.cells.shared[at]),
            None => std::mem::take(self.memo),
        };
        memo.of = None;
        let noted = Some(&mut memo.memo);
        let charged = self
            .cells
            .charge_noting(tables, rules, attributes, now, notes, noted);
        if memo.memo.is_ready() {
            memo.of = Some(of);
        }
        match shared {
            Some(at) => self.cells.shared[at] = memo,
            None => *self.memo = memo,
        }
        charged
    }
}

impl QuotaCells {
    fn charge_noting(
        &mut self,
        tables: &Tables,
        rules: &[QuotaIndex],
        attributes: &Attributes<'_>,
        now: Mono,
        notes: &mut Notes,
        memo: Option<&mut Memo>,
    ) -> Result<(), QuotaIndex> {
        let errors_before = notes.expression_errors;
        let mut ask = self.cells.ask();
        let mut values = [None; DIMENSIONS_MAX];
        // Values of the charge before this one, which rules of equal dimensions share.
        let mut valued = None;
        let mut held = false;
        for at in rules {
            let row = tables.quota(*at);
            let alike = valued == Some(row.dimension_set);
            match evaluate(row, attributes, alike, &mut values) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(()) => {
                    notes.expression_errors += 1;
                    continue;
                }
            }
            held = true;
            if alike {
                ask.rule_alike(at.at());
                continue;
            }
            valued = Some(row.dimension_set);
            ask.rule(at.at());
            for value in values.iter().take(row.dimensions.len()).flatten() {
                match *value {
                    Val::Text(text) => match String::from_utf8_lossy(text) {
                        Cow::Borrowed(text) => ask.value(text),
                        Cow::Owned(text) => ask.value(&text),
                    },
                    Val::Parts(first, separator, second) => {
                        ask.value_of(format_args!("{first}{}{second}", char::from(separator)))
                    }
                    Val::Int(number) | Val::DurationNs(number) => ask.value_of(number),
                    Val::Double(number) => ask.value_of(number),
                    Val::Bool(truth) => ask.value_of(truth),
                    Val::Ip(ip) => ask.value_of(ip),
                    Val::Map(_) => ask.value(""),
                };
            }
        }
        let verdict = match memo {
            // A rule that cannot be evaluated is counted each time, so it has to be met each time.
            Some(memo) if notes.expression_errors == errors_before => {
                ask.decide_noting(now.0, memo)
            }
            Some(memo) => {
                memo.clear();
                ask.decide(now.0)
            }
            None => ask.decide(now.0),
        };
        match verdict {
            Verdict::Admit => {
                notes.charged = held;
                Ok(())
            }
            Verdict::Exhausted { rule } | Verdict::Full { rule } => Err(QuotaIndex::of(rule)),
        }
    }
}

/// Whether the rule's condition holds, and the values of its dimensions unless they are known. An
/// instance that cannot be built skips its rule.
fn evaluate<'a>(
    row: &'a QuotaRow,
    attributes: &Attributes<'a>,
    known: bool,
    values: &mut [Option<Val<'a>>; DIMENSIONS_MAX],
) -> Result<bool, ()> {
    if let Some(when) = &row.when
        && !expr::holds(when, attributes).map_err(|_| ())?
    {
        return Ok(false);
    }
    if known {
        return Ok(true);
    }
    for (place, (_, program)) in values.iter_mut().zip(&row.dimensions) {
        *place = Some(
            expr::value(program, attributes)
                .map_err(|_| ())?
                .ok_or(())?,
        );
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use ringmesh_wire::Expr;
    use ringmesh_wire::snapshot::{Applies, Limit, QuotaRule, QuotaScope};

    use super::*;
    use crate::policy::{Call, check};
    use crate::tables::Site;
    use crate::tables::testing::{Arena, Draft, peer};
    use crate::view::Peer;

    fn dimension(name: &str, map: &str, label: &str) -> (String, Expr) {
        let mut arena = Arena::default();
        let (key, unknown) = (arena.key(map, label), arena.text("unknown"));
        arena.otherwise(key, unknown);
        (name.into(), arena.expr())
    }

    fn rule(name: &str, amount_max: u64, dimensions: Vec<(String, Expr)>) -> QuotaRule {
        QuotaRule {
            name: name.into(),
            when: None,
            dimensions,
            charge: 1,
            limit: Limit {
                amount_max,
                window_ms: 1_000,
            },
            overrides: Vec::new(),
            scope: QuotaScope::Dimensions,
            applies: Applies::Inbound,
            enforcers: 1,
            group: 0,
        }
    }

    const NOW: Mono = Mono(1_000_000_000);

    /// The cells of a sidecar alone, under `tables`.
    fn alone_with(tables: &Tables) -> QuotaCells {
        let home = Home {
            shard: 0,
            shards: 1,
            standalone: true,
        };
        let mut cells = QuotaCells::new(home, 7);
        cells.swap(tables, NOW);
        cells
    }

    /// A call of `peer` that arrives for the app.
    fn call_of(peer: &Peer) -> Call<'_> {
        Call {
            site: Site::Inbound,
            peer,
            request: None,
            destination: ([127, 0, 0, 1], 8080).into(),
        }
    }

    /// Rules with equal dimensions share their values; each still has its own limit and buckets,
    /// also where another rule stands between them.
    #[test]
    fn rules_alike_share_values_and_nothing_else() {
        let app = || vec![dimension("app", "source.labels", "app")];
        let version = vec![dimension("version", "source.labels", "version")];
        let mut draft = Draft::new();
        draft.quotas = vec![
            rule("a", 9, app()),
            rule("b", 8, app()),
            rule("c", 7, version),
            rule("d", 2, app()),
        ];
        let tables = draft.tables();
        let sets: Vec<u32> = tables.quotas().iter().map(|q| q.dimension_set).collect();
        assert_eq!(sets, [0, 0, 1, 0]);
        assert!(tables.quotas().iter().all(|q| q.stays == Stays::ForCaller));
        let mut cells = alone_with(&tables);
        let mut ask = |name: &str, version: &str| {
            let peer = peer(name, version);
            check(&tables, &call_of(&peer), &mut cells, NOW)
                .map(|permit| permit.notes().charged)
                .map_err(|refusal| (refusal.policy.to_owned(), refusal.notes.charged))
        };
        assert_eq!(ask("x", "v1"), Ok(true));
        assert_eq!(ask("x", "v2"), Ok(true));
        assert_eq!(ask("x", "v1"), Err(("d".into(), false)));
        // Another app has buckets of its own.
        assert_eq!(ask("y", "v1"), Ok(true));
        let mut seen: Vec<(String, Vec<String>, u64)> = cells
            .state()
            .into_iter()
            .map(|cell| (cell.bucket.rule, cell.bucket.values, cell.busy))
            .collect();
        seen.sort();
        let wanted = [
            ("a", "x", 2),
            ("a", "y", 1),
            ("b", "x", 2),
            ("b", "y", 1),
            ("c", "v1", 2),
            ("c", "v2", 1),
            ("d", "x", 2),
            ("d", "y", 1),
        ];
        // The refused call left nothing charged anywhere.
        let wanted = wanted.map(|(rule, value, n)| (rule.to_owned(), vec![value.to_owned()], n));
        assert_eq!(seen, wanted);
    }

    /// The local app's connections share what they found; callers that can be told apart do not.
    #[test]
    fn what_one_connection_found_serves_those_that_are_the_same_caller() {
        let mut draft = Draft::new();
        draft.quotas = vec![rule("a", 3, vec![dimension("app", "source.labels", "app")])];
        let tables = draft.tables();
        let mut cells = alone_with(&tables);
        let mut ask = |peer: &Peer, memo: &mut QuotaMemo| {
            let mut connection = OfConnection {
                cells: &mut cells,
                memo,
                site: Site::Inbound,
            };
            let charged = check(&tables, &call_of(peer), &mut connection, NOW);
            let charged = charged.map(|permit| permit.notes().charged);
            let shared = cells.shared.iter().filter(|memo| memo.of.is_some()).count();
            (charged.ok(), memo.of.is_some(), shared)
        };
        let stranger = Peer {
            identity: None,
            ..peer("x", "v1")
        };
        // Each on a connection of its own.
        assert_eq!(
            ask(&stranger, &mut QuotaMemo::default()),
            (Some(true), false, 1)
        );
        assert_eq!(
            ask(&stranger, &mut QuotaMemo::default()),
            (Some(true), false, 1)
        );
        for name in ["x", "y"] {
            let mut memo = QuotaMemo::default();
            for _ in 0..3 {
                assert_eq!(ask(&peer(name, "v1"), &mut memo), (Some(true), true, 1));
            }
            assert_eq!(ask(&peer(name, "v1"), &mut memo), (None, true, 1));
        }
        assert_eq!(
            ask(&stranger, &mut QuotaMemo::default()),
            (Some(true), false, 1)
        );
        assert_eq!(ask(&stranger, &mut QuotaMemo::default()), (None, false, 1));
    }

    /// What a connection remembers is charged, and said to be charged, like the first call.
    #[test]
    fn a_remembered_charge_counts_like_the_first() {
        let mut draft = Draft::new();
        draft.quotas = vec![rule("a", 2, vec![dimension("app", "source.labels", "app")])];
        let tables = draft.tables();
        let mut cells = alone_with(&tables);
        let peer = peer("x", "v1");
        let call = call_of(&peer);
        let mut memo = QuotaMemo::default();
        let mut ask = || {
            let mut connection = OfConnection {
                cells: &mut cells,
                memo: &mut memo,
                site: Site::Inbound,
            };
            check(&tables, &call, &mut connection, NOW).map(|permit| permit.notes().charged)
        };
        assert_eq!(ask().ok(), Some(true));
        assert_eq!(ask().ok(), Some(true));
        assert!(ask().is_err());
        assert!(
            memo.of.is_some(),
            "the second call was not the remembered one"
        );
    }
}
