//! The three steps in their order, and the permit at their end.

use super::attributes::{Attributes, Call};
use super::{authz, expr};
use crate::reason::Reason;
use crate::tables::{QuotaIndex, QuotaRow, Site, Tables};
use crate::time::Mono;

/// Proof that a call was judged and may pass. Only [`check`] makes one.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit is what the way to the app asks for"]
pub struct Permit {
    notes: Notes,
    /// Keeps others from building one.
    _made_by_check: (),
}

impl Permit {
    /// What was seen on the way.
    #[must_use]
    pub fn notes(&self) -> Notes {
        self.notes
    }
}

/// What was seen on the way to a verdict, for counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Conditions and dimensions that could not be evaluated; each counted as "no match".
    pub expression_errors: u32,
    /// The first AUDIT policy that matched, and its first rule.
    pub audited: Option<Audited>,
    /// At least one quota was charged.
    pub charged: bool,
}

/// An AUDIT policy that matched, as its place in the tables: its name is needed once the call has ended, and a copy
/// would be an allocation for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audited {
    site: Site,
    policy: u32,
    /// Its first rule that matched, counted from 0.
    pub rule: u32,
}

impl Audited {
    pub(super) fn at(site: Site, policy: usize, rule: usize) -> Self {
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            site,
            policy: number(policy),
            rule: number(rule),
        }
    }

    /// `NAME.NAMESPACE` of the policy, by the tables the call was judged by.
    #[must_use]
    pub fn policy(self, tables: &Tables) -> &str {
        let rows = tables.policy(self.site);
        let row = rows.and_then(|rows| rows.audit.get(self.policy as usize));
        row.map_or("", |row| &row.name)
    }
}

/// A call that may not pass. For gRPC the answer is HTTP 200 with `grpc_status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal<'t> {
    /// Stable reason.
    pub reason: Reason,
    /// HTTP status.
    pub status: u16,
    /// gRPC status.
    pub grpc_status: u8,
    /// Body, or gRPC message.
    pub body: &'t str,
    /// Policy, rule or quota that refuses, for the log; empty where no ALLOW policy matched.
    pub policy: &'t str,
    /// What was seen on the way.
    pub notes: Notes,
}

/// The quota step, as `check` calls it.
pub trait QuotaStep {
    /// Charges a call to every rule of `rules` whose condition holds. Expressions that cannot be
    /// evaluated skip their rule and are counted in `notes`, which also says whether any rule held.
    ///
    /// # Errors
    /// The rule that is used up; then nothing stays charged to any other.
    fn charge(
        &mut self,
        tables: &Tables,
        rules: &[QuotaIndex],
        attributes: &Attributes<'_>,
        now: Mono,
        notes: &mut Notes,
    ) -> Result<(), QuotaIndex>;
}

/// Judges a call. The order is fixed: authorization, check rules, quota, so that a refused call
/// costs no units.
///
/// # Errors
/// [`Refusal`]: what to answer and why.
pub fn check<'t>(
    tables: &'t Tables,
    call: &Call<'_>,
    quota: &mut impl QuotaStep,
    now: Mono,
) -> Result<Permit, Refusal<'t>> {
    let mut notes = Notes::default();
    if let Some(rows) = tables.policy(call.site) {
        let attributes = Attributes::new(tables, call);
        authz::judge(rows, call.site, &attributes, &mut notes)?;
        for rule in &rows.checks {
            if !holds(rule.when.as_ref(), &attributes, &mut notes) {
                continue;
            }
            return Err(Refusal {
                reason: Reason::CheckDenied,
                status: rule.status,
                grpc_status: rule.grpc_status,
                body: &rule.body,
                policy: &rule.name,
                notes,
            });
        }
        if !rows.quotas.is_empty()
            && let Err(at) = quota.charge(tables, &rows.quotas, &attributes, now, &mut notes)
        {
            let rule: &QuotaRow = tables.quota(at);
            return Err(Refusal {
                reason: Reason::QuotaExhausted,
                status: 429,
                grpc_status: 8,
                body: &rule.body,
                policy: &rule.rule.name,
                notes,
            });
        }
    }
    Ok(Permit {
        notes,
        _made_by_check: (),
    })
}

/// A condition; one that cannot be evaluated does not hold, and is counted.
fn holds(
    when: Option<&crate::tables::Program>,
    attributes: &Attributes<'_>,
    notes: &mut Notes,
) -> bool {
    let Some(program) = when else {
        return true;
    };
    expr::holds(program, attributes).unwrap_or_else(|_| {
        notes.expression_errors += 1;
        false
    })
}
