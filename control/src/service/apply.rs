//! Changing rules: the whole of one apply.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ringmesh_wire::Revision;

use super::control::Control;
use super::plan::difference;
use crate::model::{Model, Status};
use crate::publish::{Laggard, Verdict};
use crate::rules::{self, Kind, Object, Place, RuleError};
use crate::store::{Change, ChangeKind, Document, ObjectKey, StoreError, StoredObject};
use crate::svid::unix_ms;

/// A file of rules.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// As the user named it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Intent {
    /// Put these objects.
    Apply(Vec<SourceFile>),
    /// Delete the objects these files name.
    DeleteFiles(Vec<SourceFile>),
    /// Delete one object.
    Delete(rules::ObjectKey),
    /// Make everything as it was at this revision.
    Rollback(u64),
}

/// One change of the rules.
#[derive(Debug, Clone)]
pub struct Request {
    /// What.
    pub intent: Intent,
    /// Refuse what would be INACTIVE.
    pub strict: bool,
    /// Say what would happen, do nothing.
    pub dry_run: bool,
    /// The revision the user believes to be current.
    pub expected: Option<u64>,
    /// Who.
    pub who: String,
    /// What they call it.
    pub what: String,
}

/// What became of one object.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The object and its text before and after.
    pub change: Change,
    /// Its status; `None` once deleted.
    pub status: Option<Status>,
}

/// What was done.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The revision that holds it: a new one only if something changed.
    pub revision: u64,
    /// Every object spoken of.
    pub outcomes: Vec<Outcome>,
    /// Objects not spoken of whose status changed.
    pub also: Vec<Status>,
}

/// Why it was not.
#[derive(Debug)]
#[non_exhaustive]
pub enum ApplyError {
    /// The input is wrong.
    Invalid(Vec<RuleError>),
    /// `strict`, and these would not be in force.
    Inactive(Vec<Status>),
    /// There is no such thing, somebody else was faster, or the store is broken.
    Store(StoreError),
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(errors) => {
                for error in errors {
                    writeln!(f, "{error}")?;
                }
                Ok(())
            }
            Self::Inactive(statuses) => write!(f, "{} objects would be INACTIVE", statuses.len()),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ApplyError {}

fn stored_key(key: &rules::ObjectKey) -> ObjectKey {
    ObjectKey {
        kind: key.kind.name().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

pub(super) fn rule_key(key: &ObjectKey) -> Option<rules::ObjectKey> {
    Some(rules::ObjectKey {
        kind: Kind::by_name(&key.kind)?,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    })
}

/// All objects of the files; one named twice is an error.
fn parse_files(files: &[SourceFile]) -> Result<BTreeMap<rules::ObjectKey, Object>, ApplyError> {
    let mut objects: BTreeMap<rules::ObjectKey, Object> = BTreeMap::new();
    let mut errors = Vec::new();
    for file in files {
        match rules::parse(&file.name, &file.text) {
            Ok(parsed) => {
                for object in parsed {
                    if let Some(first) = objects.get(&object.key) {
                        errors.push(RuleError {
                            file: file.name.clone(),
                            place: Place {
                                line: object.first_line,
                                column: 1,
                                field: "metadata.name".into(),
                            },
                            what: format!(
                                "{} is defined twice; the first is {}:{}",
                                object.key, first.file, first.first_line
                            ),
                            fix: "keep one of them".into(),
                        });
                    } else {
                        objects.insert(object.key.clone(), object);
                    }
                }
            }
            Err(found) => errors.extend(found.0),
        }
    }
    if errors.is_empty() {
        Ok(objects)
    } else {
        Err(ApplyError::Invalid(errors))
    }
}

fn stored(object: &Object) -> StoredObject {
    StoredObject {
        key: stored_key(&object.key),
        document: Document {
            file: object.file.to_string(),
            first_line: object.first_line,
            text: object.text.to_string(),
        },
        revision: 0,
    }
}

impl Control {
    /// Does what `request` asks, as one revision, or nothing. Blocks on the disk.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub fn apply(&self, request: &Request) -> Result<Applied, ApplyError> {
        let _gate = self.gate();
        let current = self.book.revision()?;
        if let Some(expected) = request.expected.filter(|expected| *expected != current) {
            return Err(ApplyError::Store(StoreError::Revision {
                expected,
                current,
            }));
        }
        let mut before = self.book.objects()?;
        let (changes, parsed) = self.changes(&request.intent, &mut before)?;

        let (model, view, effective, old_statuses) = {
            let state = self.lock();
            (
                Arc::clone(&state.model),
                state.registry.view(),
                Arc::clone(&state.effective),
                state.statuses.clone(),
            )
        };
        let real = |change: &&Change| change.kind() != ChangeKind::Unchanged;
        let count = changes.iter().filter(real).count();
        let revision = if count == 0 { current } else { current + 1 };
        let mut next = Model {
            revision: Revision(revision),
            objects: model.objects.clone(),
            refused: model.refused.clone(),
        };
        for change in &changes {
            let Some(key) = rule_key(&change.key) else {
                continue;
            };
            next.refused.remove(&key);
            match parsed.get(&key) {
                Some(object) => next.objects.insert(key, Arc::clone(object)),
                None => next.objects.remove(&key),
            };
        }
        let resolution = next.resolve(&view, &effective);
        let outcomes = outcomes(&changes, &resolution.statuses);
        if request.strict {
            let inactive = outcomes.iter().filter_map(|o| o.status.clone());
            let inactive: Vec<Status> = inactive
                .filter(|status| status.state != crate::model::State::Active)
                .collect();
            if !inactive.is_empty() {
                return Err(ApplyError::Inactive(inactive));
            }
        }
        let spoken: Vec<&ObjectKey> = changes.iter().map(|c| &c.key).collect();
        let also = resolution.statuses.iter().filter(|status| {
            !spoken.contains(&&stored_key(&status.key))
                && old_statuses
                    .iter()
                    .any(|old| old.key == status.key && old.state != status.state)
        });
        let applied = Applied {
            revision,
            also: also.cloned().collect(),
            outcomes,
        };
        if request.dry_run || count == 0 {
            return Ok(applied);
        }
        let real: Vec<Change> = changes.iter().filter(real).cloned().collect();
        let now_ms = unix_ms(SystemTime::now());
        self.book
            .apply(current, real, &request.who, &request.what, now_ms)?;
        tracing::info!(who = request.who, what = request.what, revision, "applied");
        self.audit(
            &request.who,
            format!("revision {revision}: {}", request.what),
        );
        let in_force = difference(&next, &resolution.effective);
        self.keep_in_force(&in_force);

        let now = self.now();
        let mut state = self.lock();
        state.model = Arc::new(next);
        state.effective = Arc::new(resolution.effective);
        state.in_force = in_force;
        state.statuses = resolution.statuses;
        state.dirty.rules(now);
        drop(state);
        self.counters
            .revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.changed.notify_one();
        Ok(applied)
    }

    /// The changes an intent amounts to, and the objects after it.
    #[expect(clippy::type_complexity, reason = "a pair of two plain collections")]
    fn changes(
        &self,
        intent: &Intent,
        before: &mut BTreeMap<ObjectKey, StoredObject>,
    ) -> Result<(Vec<Change>, BTreeMap<rules::ObjectKey, Arc<Object>>), ApplyError> {
        let mut delete = |key: &rules::ObjectKey| {
            let key = stored_key(key);
            let object = before.remove(&key).ok_or_else(|| StoreError::Absent {
                what: format!("{key}"),
            })?;
            Ok::<Change, ApplyError>(Change {
                key,
                before: Some(object),
                after: None,
            })
        };
        match intent {
            Intent::Apply(files) => {
                let objects = parse_files(files)?;
                let changes = objects.values().map(|object| Change {
                    key: stored_key(&object.key),
                    before: before.get(&stored_key(&object.key)).cloned(),
                    after: Some(stored(object)),
                });
                let changes = changes.collect();
                let objects = objects.into_iter().map(|(k, o)| (k, Arc::new(o))).collect();
                Ok((changes, objects))
            }
            Intent::DeleteFiles(files) => {
                let objects = parse_files(files)?;
                // What is not there is deleted already.
                let changes = objects.keys().filter_map(|key| delete(key).ok());
                Ok((changes.collect(), BTreeMap::new()))
            }
            Intent::Delete(key) => Ok((vec![delete(key)?], BTreeMap::new())),
            Intent::Rollback(revision) => {
                let changes = self.book.back_to(*revision)?;
                let mut objects = BTreeMap::new();
                for after in changes.iter().filter_map(|c| c.after.as_ref()) {
                    let document = &after.document;
                    let parsed =
                        rules::parse_document(&document.file, document.first_line, &document.text)
                            .map_err(|e| ApplyError::Invalid(e.0))?;
                    if let Some(object) = parsed {
                        objects.insert(object.key.clone(), Arc::new(object));
                    }
                }
                Ok((changes, objects))
            }
        }
    }

    /// Whether the rules of `revision` are in force everywhere. A sidecar that is expected back is
    /// waited for: right after a restart of control nobody is connected, and all live.
    fn verdict(&self, revision: u64) -> Verdict {
        let state = self.lock();
        let away = state.registry.awaited().into_iter();
        let mut away: Vec<Laggard> = away
            .filter(|node| !state.connected.contains_key(node))
            .map(|node| Laggard {
                node,
                refused: None,
            })
            .collect();
        match state.fanout.verdict(revision) {
            verdict if away.is_empty() => verdict,
            Verdict::Everywhere(_) => Verdict::Waiting(away),
            Verdict::Refused(behind) | Verdict::Waiting(behind) => {
                away.extend(behind);
                Verdict::Waiting(away)
            }
        }
    }

    /// Waits until the rules of `revision` are in force on every live sidecar, one of them refuses,
    /// or `patience` ends.
    pub async fn wait_everywhere(&self, revision: u64, patience: Duration) -> Verdict {
        let deadline = tokio::time::Instant::now() + patience;
        let mut settled = self.settled.subscribe();
        loop {
            settled.borrow_and_update();
            let verdict = self.verdict(revision);
            if !matches!(verdict, Verdict::Waiting(_)) {
                return verdict;
            }
            match tokio::time::timeout_at(deadline, settled.changed()).await {
                Ok(Ok(())) => {}
                _ => return verdict,
            }
        }
    }
}

fn outcomes(changes: &[Change], statuses: &[Status]) -> Vec<Outcome> {
    let outcomes = changes.iter().map(|change| Outcome {
        change: change.clone(),
        status: change
            .after
            .as_ref()
            .and_then(|_| statuses.iter().find(|s| stored_key(&s.key) == change.key))
            .cloned(),
    });
    outcomes.collect()
}
