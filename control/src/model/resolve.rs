//! References resolved against each other and the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmesh_wire::Revision;

use super::notes::notes;
use super::references::Found;
use super::refused::Refused;
use super::registry::RegistryView;
use super::services::Services;
use super::status::{State, Status};
use crate::rules::{Kind, Object, ObjectKey};

/// What users wrote, at one revision.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Revision.
    pub revision: Revision,
    /// Objects by name.
    pub objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// Objects that are stored and cannot be read, by name; none of these is in `objects`.
    pub refused: BTreeMap<ObjectKey, Arc<Refused>>,
}

/// What is in force: of each object the newest version whose references resolve.
#[derive(Debug, Clone, Default)]
pub struct Effective {
    /// Revision of the model it was made from.
    pub revision: Revision,
    /// Objects in force.
    pub objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// Objects (DestinationRules, handlers, instances...) that were changed or deleted while one in
    /// force still needs them as they were, from new to old: of two versions of one the first counts
    /// for what both say. Store them with `objects`: both come back by
    /// [`crate::rules::parse_document`].
    pub held: Vec<Arc<Object>>,
    /// Objects as written that are not in force, for lack of something they name; older versions of
    /// them may be. Not stored: resolving finds them again.
    pub waiting: Vec<Arc<Object>>,
    /// Objects that cannot be read. Not stored either.
    pub refused: Vec<Arc<Refused>>,
}

impl Effective {
    /// All that is written or in force: who speaks of something, even if not yet with effect.
    pub(crate) fn spoken(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values().chain(&self.waiting)
    }

    /// Whether an object of this kind that cannot be read may speak of `name`.
    pub(crate) fn refused_may_name(&self, kind: Kind, name: &str) -> bool {
        let mut refused = self.refused.iter();
        refused.any(|refused| refused.key.kind == kind && refused.may_name(name))
    }
}

/// The outcome.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    /// What is in force now.
    pub effective: Effective,
    /// One per object, in the order of their keys.
    pub statuses: Vec<Status>,
}

impl Resolution {
    /// Whether every object is in force (`--strict` demands it).
    #[must_use]
    pub fn all_active(&self) -> bool {
        self.statuses
            .iter()
            .all(|status| status.state == State::Active)
    }
}

impl Model {
    /// A model of these objects; of two with one name the later counts.
    #[must_use]
    pub fn new(revision: Revision, objects: impl IntoIterator<Item = Object>) -> Self {
        Self {
            revision,
            objects: objects
                .into_iter()
                .map(|object| (object.key.clone(), Arc::new(object)))
                .collect(),
            refused: BTreeMap::new(),
        }
    }

    /// Resolves all references. `before` is what was in force until now.
    #[must_use]
    pub fn resolve(&self, registry: &RegistryView, before: &Effective) -> Resolution {
        let services = Services::new(registry, self.objects.values());
        let past = || before.objects.values().chain(&before.held);
        let mut round = Round {
            before,
            in_force: BTreeMap::new(),
            held: BTreeSet::new(),
            waiting: Vec::new(),
            statuses: Vec::new(),
        };
        // First what others refer to, then what refers: subsets exist by DestinationRules in force.
        let none = BTreeMap::new();
        let found = Found::new(&services, &self.objects, &none, past());
        let routes = |key: &ObjectKey| key.kind == Kind::VirtualService;
        let (second, first): (Vec<_>, Vec<_>) = self
            .objects
            .values()
            .partition(|object| routes(&object.key));
        let (refused_second, refused_first): (Vec<_>, Vec<_>) = self
            .refused
            .values()
            .partition(|refused| routes(&refused.key));
        for object in first {
            round.place(object, &found);
        }
        for refused in refused_first {
            round.place_refused(refused, &found);
        }
        let defined = round.in_force.clone();
        let found = Found::new(&services, &self.objects, &defined, past());
        for object in second {
            round.place(object, &found);
        }
        for refused in refused_second {
            round.place_refused(refused, &found);
        }
        round.statuses.sort_by(|a, b| a.key.cmp(&b.key));
        let effective = Effective {
            revision: self.revision,
            objects: round.in_force,
            held: past()
                .filter(|past| round.held.contains(&version(past)))
                .cloned()
                .collect(),
            waiting: round.waiting,
            refused: self.refused.values().cloned().collect(),
        };
        let mut notes = notes(&effective, &services, registry);
        let mut statuses = round.statuses;
        for status in &mut statuses {
            status
                .notes
                .extend(notes.remove(&status.key).unwrap_or_default());
        }
        Resolution {
            effective,
            statuses,
        }
    }
}

/// What tells one version of an object from another.
fn version(object: &Arc<Object>) -> (ObjectKey, Arc<str>) {
    (object.key.clone(), Arc::clone(&object.text))
}

/// Resolution under way.
struct Round<'a> {
    before: &'a Effective,
    in_force: BTreeMap<ObjectKey, Arc<Object>>,
    held: BTreeSet<(ObjectKey, Arc<str>)>,
    waiting: Vec<Arc<Object>>,
    statuses: Vec<Status>,
}

impl Round<'_> {
    /// Decides which version of an object is in force.
    fn place(&mut self, object: &Arc<Object>, found: &Found<'_>) {
        let missing = found.missing(object, None);
        let mut status = Status {
            key: object.key.clone(),
            file: object.file.to_string(),
            state: State::Active,
            notes: Vec::new(),
        };
        if missing.is_empty() {
            self.in_force.insert(object.key.clone(), Arc::clone(object));
        } else {
            status.state = State::Inactive(missing);
            self.waiting.push(Arc::clone(object));
            if let Some(note) = self.keep_older(&object.key, &object.text, found) {
                status.notes.push(note);
            }
        }
        self.statuses.push(status);
    }

    /// What cannot be read is not in force; a version from before it may be.
    fn place_refused(&mut self, refused: &Refused, found: &Found<'_>) {
        let older = self.keep_older(&refused.key, &refused.text, found);
        let note = "stored by a version that took it, which this one does not: nothing of it is in \
                    force; replace or delete it";
        self.statuses.push(Status {
            key: refused.key.clone(),
            file: refused.file.clone(),
            state: State::Refused(refused.errors.clone()),
            notes: vec![older.unwrap_or_else(|| note.to_owned())],
        });
    }

    /// Keeps the version that was in force before, with what it needs of the past.
    fn keep_older(&mut self, key: &ObjectKey, text: &str, found: &Found<'_>) -> Option<String> {
        let older = self.before.objects.get(key)?;
        let mut held = Vec::new();
        if !found.missing(older, Some(&mut held)).is_empty() {
            return Some("the version in force before cannot be kept either".to_owned());
        }
        self.in_force.insert(older.key.clone(), Arc::clone(older));
        self.held.extend(held.into_iter().map(version));
        Some(if *older.text == *text {
            "it stays in force as it was, with what it referred to".to_owned()
        } else {
            format!(
                "the version of {}:{} stays in force",
                older.file, older.first_line
            )
        })
    }
}
