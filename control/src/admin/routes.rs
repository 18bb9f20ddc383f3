//! The routes of the API.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path as Segment, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use ringmesh_wire::snapshot::EndpointState;
use ringmesh_wire::{NodeId, Revision, SectionKind, SpiffeId};
use serde::Deserialize;
use tokio::net::UnixListener;

use super::api;
use super::peer::Who;
use crate::lease::QuotaAuthority;
use crate::model;
use crate::publish::Verdict;
use crate::rules::{self, Kind};
use crate::service::{Applied, ApplyError, Control, Intent, Request, SourceFile};
use crate::store::{AuditRecord, Binding, ObjectKey, StoreError, TokenState};
use crate::svid::{Refusal, unix_ms};

/// Bytes of one request: a whole mesh of rules.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Binds the socket, 0660. A socket left by a killed run is removed; one that is in use is not.
///
/// # Errors
/// Where another process listens on it, or the path cannot be bound.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::AddrInUse,
            "another control service listens there",
        ));
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves the API until dropped.
///
/// # Errors
/// Where the listener fails for good.
pub async fn serve(
    control: Arc<Control>,
    authority: Arc<QuotaAuthority>,
    listener: UnixListener,
) -> std::io::Result<()> {
    let quotas = Router::new()
        .route("/v1/quota", get(quota))
        .with_state(authority);
    let app = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/objects", get(objects))
        .route("/v1/apply", post(apply))
        .route("/v1/delete", post(delete_objects))
        .route("/v1/wait", get(wait))
        .route("/v1/history", get(history))
        .route("/v1/rollback", post(rollback))
        .route("/v1/proxies", get(proxies))
        .route("/v1/proxies/{node}/config", get(config))
        .route("/v1/proxies/{node}/names", get(names))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/endpoints/{node}", delete(forget_endpoint))
        .route("/v1/endpoints/thaw", post(thaw))
        .route("/v1/tokens", get(tokens).post(create_token))
        .route("/v1/certs", get(certs))
        .route("/v1/certs/{node}/revoke", post(revoke))
        .route("/v1/roots", get(roots))
        .route("/v1/roots/rotate", post(rotate_root))
        .route("/v1/hosts", get(hosts))
        .route("/v1/audit", get(audit))
        .route("/v1/audit/chain", get(audit_chain))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control)
        .merge(quotas);
    let service = app.into_make_service_with_connect_info::<Who>();
    axum::serve(listener, service).await
}

type Here = State<Arc<Control>>;
type Answer<T> = Result<Json<T>, Failure>;

/// A refusal with its status code.
struct Failure(StatusCode, api::Problem);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

fn failure(status: StatusCode, code: &str, message: impl Into<String>) -> Failure {
    Failure(
        status,
        api::Problem {
            code: code.to_owned(),
            message: message.into(),
            errors: Vec::new(),
        },
    )
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (status, code) = match error {
            StoreError::Conflict { .. } | StoreError::Revision { .. } => {
                (StatusCode::CONFLICT, "conflict")
            }
            StoreError::Absent { .. } => (StatusCode::NOT_FOUND, "absent"),
            StoreError::Broken { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "store_failed"),
        };
        failure(status, code, error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            "node_unknown" => StatusCode::NOT_FOUND,
            "store_failed" | "ca_failed" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        failure(status, refusal.code, refusal.message)
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        let (code, message, errors) = match error {
            ApplyError::Store(error) => return error.into(),
            ApplyError::Invalid(errors) => (
                "invalid",
                "the rules are wrong; nothing was changed",
                errors.iter().map(ToString::to_string).collect(),
            ),
            ApplyError::Inactive(statuses) => (
                "inactive",
                "with --strict, what cannot be in force now is refused; nothing was changed",
                statuses.iter().flat_map(|s| status_of(s).missing).collect(),
            ),
        };
        let problem = api::Problem {
            code: code.to_owned(),
            message: message.to_owned(),
            errors,
        };
        Self(StatusCode::UNPROCESSABLE_ENTITY, problem)
    }
}

/// Runs what blocks on the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| failure(StatusCode::INTERNAL_SERVER_ERROR, "failed", e.to_string()))
}

fn name_of(key: &rules::ObjectKey) -> api::ObjectName {
    api::ObjectName {
        kind: key.kind.name().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

fn stored_name(key: &ObjectKey) -> api::ObjectName {
    api::ObjectName {
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

fn status_of(status: &model::Status) -> api::ObjectStatus {
    let why = status.state.why().into_iter();
    api::ObjectStatus {
        object: name_of(&status.key),
        state: status.state.word().to_owned(),
        missing: why.map(|one| format!("{}:{one}", status.file)).collect(),
        notes: status.notes.clone(),
    }
}

fn changed(applied: Applied) -> api::Changed {
    let objects = applied.outcomes.into_iter().map(|outcome| {
        let change = outcome.change;
        api::ChangedObject {
            object: stored_name(&change.key),
            change: change.kind().to_string(),
            status: outcome.status.as_ref().map(status_of),
            before: change.before.map(|o| o.document.text),
            after: change.after.map(|o| o.document.text),
        }
    });
    api::Changed {
        revision: applied.revision,
        objects: objects.collect(),
        also: applied.also.iter().map(status_of).collect(),
    }
}

async fn status(State(control): Here) -> Answer<api::Status> {
    let worker = Arc::clone(&control);
    let revision = blocking(move || worker.book().revision()).await??;
    Ok(Json(api::Status {
        revision,
        trust_domain: control.issuer().ca().trust_domain().to_owned(),
        sessions: control.sessions().len(),
        frozen: control.frozen(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

async fn objects(State(control): Here) -> Answer<Vec<api::Object>> {
    let worker = Arc::clone(&control);
    let objects = blocking(move || worker.book().objects()).await??;
    let statuses: Vec<api::ObjectStatus> = control.statuses().iter().map(status_of).collect();
    let objects = objects.into_values().map(|object| {
        let name = stored_name(&object.key);
        api::Object {
            status: statuses.iter().find(|s| s.object == name).cloned(),
            name,
            revision: object.revision,
            file: object.document.file,
            yaml: object.document.text,
        }
    });
    Ok(Json(objects.collect()))
}

fn files(files: Vec<api::File>) -> Vec<SourceFile> {
    let files = files.into_iter().map(|file| SourceFile {
        name: file.name,
        text: file.text,
    });
    files.collect()
}

fn called(verb: &str, files: &[api::File]) -> String {
    let names: Vec<&str> = files.iter().take(8).map(|f| f.name.as_str()).collect();
    let more = if files.len() > 8 { " ..." } else { "" };
    format!("{verb} {}{more}", names.join(" "))
}

async fn change(control: Arc<Control>, request: Request) -> Answer<api::Changed> {
    let applied = blocking(move || control.apply(&request)).await??;
    Ok(Json(changed(applied)))
}

async fn apply(
    State(control): Here,
    ConnectInfo(Who(who)): ConnectInfo<Who>,
    Json(body): Json<api::Change>,
) -> Answer<api::Changed> {
    let request = Request {
        what: called("apply", &body.files),
        intent: Intent::Apply(files(body.files)),
        strict: body.strict,
        dry_run: body.dry_run,
        expected: body.expected,
        who,
    };
    change(control, request).await
}

async fn delete_objects(
    State(control): Here,
    ConnectInfo(Who(who)): ConnectInfo<Who>,
    Json(body): Json<api::Change>,
) -> Answer<api::Changed> {
    let (intent, what) = match body.object {
        Some(object) => {
            let kind = Kind::by_name(&object.kind).ok_or_else(|| {
                let kinds: Vec<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
                failure(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid",
                    format!(
                        "there is no kind {}; kinds are {}",
                        object.kind,
                        kinds.join(", ")
                    ),
                )
            })?;
            let what = format!("delete {kind} {}/{}", object.namespace, object.name);
            let key = rules::ObjectKey {
                kind,
                namespace: object.namespace,
                name: object.name,
            };
            (Intent::Delete(key), what)
        }
        None => {
            let what = called("delete", &body.files);
            (Intent::DeleteFiles(files(body.files)), what)
        }
    };
    let request = Request {
        intent,
        strict: false,
        dry_run: body.dry_run,
        expected: body.expected,
        who,
        what,
    };
    change(control, request).await
}

async fn rollback(
    State(control): Here,
    ConnectInfo(Who(who)): ConnectInfo<Who>,
    Json(body): Json<api::Rollback>,
) -> Answer<api::Changed> {
    let request = Request {
        intent: Intent::Rollback(body.revision),
        strict: false,
        dry_run: body.dry_run,
        expected: None,
        who,
        what: format!("rollback {}", body.revision),
    };
    change(control, request).await
}

#[derive(Deserialize)]
struct WaitFor {
    revision: u64,
    timeout_ms: u64,
}

async fn wait(State(control): Here, Query(wait): Query<WaitFor>) -> Answer<api::Waited> {
    let patience = Duration::from_millis(wait.timeout_ms.min(600_000));
    let (live, behind) = match control.wait_everywhere(wait.revision, patience).await {
        Verdict::Everywhere(live) => (live, Vec::new()),
        Verdict::Refused(behind) | Verdict::Waiting(behind) => {
            (control.sessions().len().max(behind.len()), behind)
        }
    };
    let laggards = behind.into_iter().map(|laggard| api::Laggard {
        node: laggard.node.0,
        refused: laggard.refused,
    });
    let laggards: Vec<api::Laggard> = laggards.collect();
    Ok(Json(api::Waited {
        everywhere: laggards.is_empty(),
        live,
        laggards,
    }))
}

async fn history(State(control): Here) -> Answer<Vec<api::Revision>> {
    let entries = blocking(move || control.book().history()).await??;
    let entries = entries.into_iter().map(|entry| api::Revision {
        revision: entry.revision,
        when_ms: entry.when_ms,
        who: entry.who,
        what: entry.what,
        changes: entry
            .changes
            .iter()
            .map(|change| format!("{} {}", change.kind(), change.key))
            .collect(),
    });
    Ok(Json(entries.collect()))
}

async fn proxies(State(control): Here) -> Answer<Vec<api::Proxy>> {
    let proxies = control.sessions().into_iter().map(|session| {
        let row = session.row;
        let (state, why) = match (&session.compile_error, &row.nacked) {
            (Some(error), _) => ("NO CONFIG", error.clone()),
            (None, Some((_, why))) => ("REFUSED", why.clone()),
            (None, None) if row.wanted == row.acked && row.acked != Revision(0) => {
                ("SYNCED", String::new())
            }
            _ => ("WAITING", "it has not answered yet".to_owned()),
        };
        api::Proxy {
            node: row.node.0,
            service: session.service.map(|s| s.to_string()).unwrap_or_default(),
            peer: session.peer.to_string(),
            build: session.build,
            since_ms: session.since_ms,
            wanted: row.wanted.0,
            acked: row.acked.0,
            rules: row.acked_rules,
            state: state.to_owned(),
            why,
        }
    });
    Ok(Json(proxies.collect()))
}

/// Sections of a sidecar's configuration, decoded: `{kind, name, bytes, body}` each.
async fn config(
    State(control): Here,
    Segment(node): Segment<String>,
) -> Answer<Vec<serde_json::Value>> {
    let snapshot = control.wanted(&NodeId(node.clone())).ok_or_else(|| {
        failure(
            StatusCode::NOT_FOUND,
            "absent",
            format!("no sidecar {node} is connected and configured (ringmesh proxy list)"),
        )
    })?;
    let sections = snapshot.sections.iter().map(|section| {
        use ringmesh_wire::snapshot::Body;
        let body = match section.open() {
            Ok(Body::Mesh(body)) => serde_json::to_value(body),
            Ok(Body::Trust(body)) => Ok(trust(&body)),
            Ok(Body::Service(body)) => serde_json::to_value(body),
            Ok(Body::Endpoints(body)) => serde_json::to_value(body),
            Ok(Body::Routes(body)) => serde_json::to_value(body),
            Ok(Body::Policy(body)) => serde_json::to_value(body),
            Ok(Body::Quota(body)) => serde_json::to_value(body),
            Ok(Body::Names(body)) => serde_json::to_value(body),
            Err(error) => Ok(serde_json::Value::String(error.to_string())),
        };
        serde_json::json!({
            "kind": kind_name(section.key.kind),
            "name": section.key.name,
            "bytes": section.bytes.len(),
            "body": body.unwrap_or_default(),
        })
    });
    Ok(Json(sections.collect()))
}

async fn names(State(control): Here, Segment(node): Segment<String>) -> Json<Vec<api::Name>> {
    let names = control.resolved(&NodeId(node)).into_iter();
    let name = |one: ringmesh_wire::ResolvedName| api::Name {
        name: one.name,
        addresses: one.addresses,
        trouble: one.trouble,
    };
    Json(names.map(name).collect())
}

fn trust(trust: &ringmesh_wire::snapshot::Trust) -> serde_json::Value {
    let hex = |bytes: &Vec<u8>| crate::svid::serial_hex(bytes);
    let sums: Vec<String> = trust
        .roots
        .iter()
        .map(|r| crate::svid::sha256_hex(r))
        .collect();
    let revoked: Vec<String> = trust.revoked_serials.iter().map(hex).collect();
    serde_json::json!({ "root_sha256": sums, "revoked_serials": revoked })
}

fn kind_name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Mesh => "mesh",
        SectionKind::Trust => "trust",
        SectionKind::Service => "service",
        SectionKind::Endpoints => "endpoints",
        SectionKind::Routes => "routes",
        SectionKind::Policy => "policy",
        SectionKind::Quota => "quota",
        SectionKind::Names => "names",
    }
}

async fn endpoints(State(control): Here) -> Answer<Vec<api::Endpoint>> {
    let rows = control.endpoint_rows().into_iter().map(|row| {
        let registration = row.registration;
        let port = |p: &ringmesh_wire::session::RegisteredPort| {
            let down = if p.healthy { "" } else { "(down)" };
            format!("{}/{}{down}", p.port, p.name)
        };
        api::Endpoint {
            service: registration.service.to_string(),
            node: row.node.0,
            address: registration.address.to_string(),
            mesh_port: registration.mesh_port,
            ports: registration.ports.iter().map(port).collect(),
            labels: registration.labels,
            identity: row.identity.to_string(),
            lease: row.lease.word().to_owned(),
            state: match row.state {
                Some(EndpointState::Ready) => "ready",
                Some(EndpointState::Unconfirmed) => "unconfirmed",
                Some(EndpointState::LastKnown) => "last-known",
                None => "withdrawn",
            }
            .to_owned(),
        }
    });
    let mut rows: Vec<api::Endpoint> = rows.collect();
    rows.sort_by(|a, b| (&a.service, &a.node).cmp(&(&b.service, &b.node)));
    Ok(Json(rows))
}

async fn forget_endpoint(
    State(control): Here,
    ConnectInfo(Who(who)): ConnectInfo<Who>,
    Segment(node): Segment<String>,
) -> Answer<()> {
    let node = NodeId(node);
    if !control.forget_endpoint(&node) {
        let message = format!("no endpoint of node {node} is known");
        return Err(failure(StatusCode::NOT_FOUND, "absent", message));
    }
    blocking(move || control.audit(&who, format!("endpoints forget {node}"))).await?;
    Ok(Json(()))
}

async fn thaw(State(control): Here, ConnectInfo(Who(who)): ConnectInfo<Who>) -> Answer<()> {
    control.thaw();
    blocking(move || control.audit(&who, "endpoints thaw")).await?;
    Ok(Json(()))
}

async fn create_token(
    State(control): Here,
    ConnectInfo(Who(who)): ConnectInfo<Who>,
    Json(body): Json<api::NewToken>,
) -> Answer<api::MadeToken> {
    let life = Duration::from_secs(body.life_s);
    let now = SystemTime::now();
    let what = format!(
        "token create {} ({}.{}, account {})",
        body.node, body.service, body.namespace, body.service_account
    );
    let binding = Binding {
        node: NodeId(body.node),
        namespace: body.namespace,
        service_account: body.service_account,
        service: body.service,
        labels: body.labels,
    };
    let token = blocking(move || {
        let token = control.issuer().create_token(binding, life, &who, now)?;
        control.audit(&who, what);
        Ok::<_, Refusal>(token)
    });
    Ok(Json(api::MadeToken {
        token: token.await??.to_string(),
        expires_ms: unix_ms(now + life),
    }))
}

async fn tokens(State(control): Here) -> Answer<Vec<api::Token>> {
    let now_ms = unix_ms(SystemTime::now());
    let tokens = blocking(move || control.book().tokens()).await??;
    let tokens = tokens.into_iter().map(|token| api::Token {
        id: token.id,
        state: match token.state {
            TokenState::Used { .. } => "used",
            TokenState::Fresh if now_ms >= token.expires_ms => "expired",
            TokenState::Fresh => "fresh",
        }
        .to_owned(),
        service: format!("{}.{}", token.binding.service, token.binding.namespace),
        node: token.binding.node.0,
        service_account: token.binding.service_account,
        expires_ms: token.expires_ms,
        created_by: token.created_by,
    });
    Ok(Json(tokens.collect()))
}

async fn quota(State(authority): State<Arc<QuotaAuthority>>) -> Json<Vec<api::Quota>> {
    let holding = |(holder, units): (ringmesh_quota::Holder, u64)| api::Holding {
        node: holder.node.0,
        shard: holder.shard,
        units,
    };
    let rules = authority.state().await.into_iter().map(|rule| api::Quota {
        name: rule.name,
        amount_max: rule.limit.map(|limit| limit.amount_max),
        window_ms: rule.limit.map(|limit| limit.window_ms),
        granting: rule.steady,
        waits_for: rule.waits_for.into_iter().map(|node| node.0).collect(),
        slots: rule
            .seeds
            .into_iter()
            .map(|(holder, slots)| holding((holder, slots.into())))
            .collect(),
        buckets: rule
            .accounts
            .into_iter()
            .map(|account| api::QuotaBucket {
                values: account.bucket.values,
                amount_max: account.bucket.amount_max,
                window_ms: account.bucket.window_ms,
                here: account.pool,
                held: account.held.into_iter().map(holding).collect(),
            })
            .collect(),
    });
    Json(rules.collect())
}

async fn certs(State(control): Here) -> Answer<Vec<api::Certificate>> {
    let now_ms = unix_ms(SystemTime::now());
    let worker = Arc::clone(&control);
    let (nodes, revoked) = blocking(move || {
        Ok::<_, StoreError>((worker.book().nodes()?, worker.book().revocations()?))
    })
    .await??;
    let domain = control.issuer().ca().trust_domain().to_owned();
    let mut all = Vec::new();
    for node in nodes {
        let binding = &node.binding;
        let workload = SpiffeId::workload(&domain, &binding.namespace, &binding.service_account);
        for cert in node.certificates.iter().filter(|c| c.not_after_ms > now_ms) {
            all.push(api::Certificate {
                node: binding.node.0.clone(),
                purpose: cert.purpose.clone(),
                serial: cert.serial.clone(),
                identity: match (&workload, cert.purpose.as_str()) {
                    (Ok(id), "workload") => id.to_string(),
                    _ => format!("spiffe://{domain}/node/{}", binding.node),
                },
                issued_ms: cert.issued_ms,
                not_after_ms: cert.not_after_ms,
                revoked: false,
            });
        }
    }
    for old in revoked.into_iter().filter(|r| r.not_after_ms > now_ms) {
        all.push(api::Certificate {
            node: old.node.0,
            purpose: "revoked".to_owned(),
            serial: old.serial,
            identity: String::new(),
            issued_ms: 0,
            not_after_ms: old.not_after_ms,
            revoked: true,
        });
    }
    Ok(Json(all))
}

async fn revoke(
    State(control): Here,
    ConnectInfo(Who(who)): ConnectInfo<Who>,
    Segment(node): Segment<String>,
) -> Answer<usize> {
    let revoked = blocking(move || control.revoke(&NodeId(node), &who)).await??;
    Ok(Json(revoked))
}

async fn roots(State(control): Here) -> Answer<Vec<api::Root>> {
    let roots = control.issuer().authority().roots().into_iter();
    let shown = roots.map(|root| api::Root {
        sha256: root.sha256,
        stage: root.stage.name().to_owned(),
        since_ms: root.since_ms,
        not_after_ms: root.not_after.map_or(0, unix_ms),
    });
    Ok(Json(shown.collect()))
}

async fn rotate_root(State(control): Here, ConnectInfo(Who(who)): ConnectInfo<Who>) -> Answer<()> {
    blocking(move || control.rotate_root(&who)).await??;
    Ok(Json(()))
}

#[derive(Deserialize)]
struct HostsFor {
    namespace: Option<String>,
}

async fn hosts(State(control): Here, Query(ask): Query<HostsFor>) -> Answer<Vec<api::Host>> {
    let namespace = ask
        .namespace
        .unwrap_or_else(|| rules::DEFAULT_NAMESPACE.to_owned());
    let services = blocking(move || control.services_for(&namespace)).await?;
    let services = services.map_err(|e| {
        failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "compile_failed",
            e.to_string(),
        )
    })?;
    let mut hosts = Vec::new();
    for service in services {
        let names = service.hosts.iter().filter(|name| !name.contains('*'));
        let names: Vec<String> = names.cloned().collect();
        for vip in service.vips {
            if !names.is_empty() {
                hosts.push(api::Host {
                    address: vip.to_string(),
                    names: names.clone(),
                });
            }
        }
    }
    Ok(Json(hosts))
}

async fn audit(State(control): Here) -> Answer<Vec<AuditRecord>> {
    Ok(Json(
        blocking(move || control.book().audit_records()).await??,
    ))
}

async fn audit_chain(State(control): Here) -> Answer<api::AuditChain> {
    let (chain, records) = blocking(move || control.book().audit_chain()).await??;
    Ok(Json(api::AuditChain { chain, records }))
}
