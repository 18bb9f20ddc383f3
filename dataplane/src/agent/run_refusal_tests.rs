//! Sidecars whose certificates control does not want any more.

use super::super::super::fake_control::TurnAway;
use super::*;

fn in_session(face: &Face) -> Option<()> {
    (face.session == Some(Phase::Live) && face.trouble.is_none()).then_some(())
}

/// Turned away `how`, by a restart or while it runs, until there is a new token in the file.
fn joins_anew(how: TurnAway, restart: bool) {
    let control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![snapshot(1)];
    let state = tempfile::tempdir().unwrap();
    let mut sidecar = Sidecar::start(&control, state.path());
    sidecar.until("session", in_session);
    {
        let mut manners = control.manners.lock().unwrap();
        manners.turn_away = Some(how);
        manners.used_tokens = vec!["id".into()];
        manners.snapshots = vec![snapshot(2)];
    }
    if restart {
        sidecar.crash();
        sidecar = Sidecar::start(&control, state.path());
    } else {
        // Every link is lost once.
        let (mut old, token) = (control, state.path().join("join.token"));
        old.die();
        sidecar.until("loss", |face| {
            (face.session != Some(Phase::Live)).then_some(())
        });
        old.listen();
        return refused_until_a_new_token(&old, &sidecar, &token, how, false);
    }
    let token = state.path().join("join.token");
    refused_until_a_new_token(&control, &sidecar, &token, how, true);
}

fn refused_until_a_new_token(
    control: &FakeControl,
    sidecar: &Sidecar,
    token: &Path,
    how: TurnAway,
    asks_with_the_old: bool,
) {
    let code = match how {
        TurnAway::Revoked => {
            "control says revoked: this certificate is revoked; put a new token of"
        }
        TurnAway::Mismatch => {
            "control says registration_mismatch: service is another; put a new token of"
        }
    };
    // A process that was started anew does not know that the token is used, and asks once.
    let ends = if asks_with_the_old {
        "token_used)"
    } else {
        "without a restart"
    };
    let create = "`ringmesh token create --node n --service s`";
    sidecar.until("advice", |face| {
        let trouble = face.trouble.as_ref()?;
        let whole =
            trouble.starts_with(code) && trouble.contains(create) && trouble.ends_with(ends);
        whole.then_some(())
    });
    assert!(sidecar.board.face().not_ready().contains(&"admission"));
    std::fs::write(token, control.token_named("another")).unwrap();
    sidecar.until("session", in_session);
    sidecar.until_revision(2);
    sidecar.until("ready", |face| face.not_ready().is_empty().then_some(()));
}

#[test]
fn a_revoked_sidecar_joins_again_with_a_new_token_after_a_restart() {
    joins_anew(TurnAway::Revoked, true);
}

#[test]
fn a_revoked_sidecar_joins_again_with_a_new_token_without_a_restart() {
    joins_anew(TurnAway::Revoked, false);
}

#[test]
fn a_sidecar_with_credentials_of_another_service_joins_anew() {
    joins_anew(TurnAway::Mismatch, true);
}

#[test]
fn a_new_token_in_the_file_is_used_at_once_after_a_restart() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![snapshot(1)];
    let state = tempfile::tempdir().unwrap();
    let mut sidecar = Sidecar::start(&control, state.path());
    sidecar.until("session", in_session);
    sidecar.crash();
    control.manners.lock().unwrap().turn_away = Some(TurnAway::Revoked);
    let token = control.token_named("another");
    let again = Sidecar::start_with(&control.at.to_string(), &token, state.path(), "");
    again.until("session", in_session);
    assert!(
        control
            .drain()
            .filter(|seen| *seen == Seen::Enrolled)
            .count()
            == 2
    );
}
