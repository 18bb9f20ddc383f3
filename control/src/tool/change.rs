//! `apply`, `delete`, `diff`, `rollback`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ringmesh_tuning::{errln, out, outln};

use super::client::Client;
use super::failure::Failure;
use super::files::read_texts;
use super::output::{self, Output};
use crate::admin::api::{Change, Changed, File, ObjectName, ObjectStatus, Rollback, Waited};
use crate::time::parse_life;

/// Waiting until a change is in force.
#[derive(Args, Debug)]
struct WaitArgs {
    /// Return when every live sidecar holds it; exit status 1 if one does not in time.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", value_parser = parse_life, default_value = "30s", requires = "wait")]
    timeout: Duration,
}

/// `ringmesh apply`
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// File, folder of .yaml files, or - for standard input. May be given several times.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Refuse objects that would be INACTIVE because something they name is missing.
    #[arg(long)]
    strict: bool,
    /// Refuse if the current revision is not this one.
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `ringmesh delete`
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Delete the objects that these files or folders name.
    #[arg(short = 'f', long = "file", value_name = "FILE", num_args = 1.., conflicts_with = "kind")]
    files: Vec<PathBuf>,
    /// Kind, e.g. VirtualService.
    #[arg(requires = "name")]
    kind: Option<String>,
    /// Name.
    name: Option<String>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    wait: WaitArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `ringmesh diff`
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// File, folder of .yaml files, or - for standard input.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
}

/// `ringmesh rollback`
#[derive(Args, Debug)]
pub struct RollbackArgs {
    /// The revision to go back to (ringmesh history).
    revision: u64,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn apply(client: &Client, args: &ApplyArgs) -> Result<(), Failure> {
    let body = Change {
        files: read(&args.files)?,
        strict: args.strict,
        expected: args.expected_revision,
        ..Change::default()
    };
    let changed: Changed = client.post("/v1/apply", &body)?;
    show(&changed, args.output, Made::Yes)?;
    wait(client, changed.revision, &args.wait)
}

pub(super) fn delete(client: &Client, args: &DeleteArgs) -> Result<(), Failure> {
    let object = match (&args.kind, &args.name) {
        (Some(kind), Some(name)) => Some(ObjectName {
            kind: kind.clone(),
            namespace: args.namespace.clone(),
            name: name.clone(),
        }),
        _ if args.files.is_empty() => {
            return Err(Failure::wrong(
                "say what to delete: -f FILE for what files name, or KIND NAME (and --namespace)",
            ));
        }
        _ => None,
    };
    let body = Change {
        files: read(&args.files)?,
        object,
        ..Change::default()
    };
    let changed: Changed = client.post("/v1/delete", &body)?;
    if changed.objects.is_empty() {
        errln!("nothing to delete: none of these objects exists");
    }
    show(&changed, args.output, Made::Yes)?;
    wait(client, changed.revision, &args.wait)
}

pub(super) fn rollback(client: &Client, args: &RollbackArgs) -> Result<(), Failure> {
    let body = Rollback {
        revision: args.revision,
        dry_run: args.dry_run,
    };
    let changed: Changed = client.post("/v1/rollback", &body)?;
    if changed.objects.is_empty() {
        errln!(
            "nothing to change: the rules are what they were at revision {}",
            args.revision
        );
    }
    if args.dry_run {
        return show(&changed, args.output, Made::No);
    }
    show(&changed, args.output, Made::Yes)?;
    wait(client, changed.revision, &args.wait)
}

pub(super) fn diff(client: &Client, args: &DiffArgs) -> Result<(), Failure> {
    let body = Change {
        files: read(&args.files)?,
        dry_run: true,
        ..Change::default()
    };
    let changed: Changed = client.post("/v1/apply", &body)?;
    for object in &changed.objects {
        let before = object.before.as_deref().unwrap_or("");
        let after = object.after.as_deref().unwrap_or("");
        if object.change == "unchanged" {
            continue;
        }
        outln!(
            "{} {} ({})",
            object.object.kind,
            name(&object.object),
            object.change
        );
        for line in lines_of_diff(before, after) {
            outln!("{line}");
        }
        if let Some(status) = &object.status {
            explain(status);
        }
    }
    for status in &changed.also {
        outln!(
            "{} {} would be {}",
            status.object.kind,
            name(&status.object),
            status.state
        );
    }
    Ok(())
}

fn read(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let texts = read_texts(paths).map_err(|error| match error.is_input() {
        true => Failure::wrong(error.to_string()),
        false => Failure::failed(error.to_string()),
    })?;
    let files = texts.into_iter().map(|(name, text)| File { name, text });
    Ok(files.collect())
}

fn name(object: &ObjectName) -> String {
    format!("{}/{}", object.namespace, object.name)
}

fn explain(status: &ObjectStatus) {
    let object = format!("{} {}", status.object.kind, name(&status.object));
    for missing in &status.missing {
        outln!("  {object} is {}: {missing}", status.state);
    }
    for note in &status.notes {
        outln!("  note on {object}: {note}");
    }
}

/// Whether a revision was made, or only shown.
#[derive(Clone, Copy)]
enum Made {
    Yes,
    No,
}

fn show(changed: &Changed, output: Output, made: Made) -> Result<(), Failure> {
    if output != Output::Table {
        return output::structured(output, changed);
    }
    let rows = changed.objects.iter().map(|object| {
        let state = object.status.as_ref().map_or("", |s| s.state.as_str());
        vec![
            object.object.kind.clone(),
            name(&object.object),
            object.change.clone(),
            state.to_owned(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        out!(
            "{}",
            output::table(&["KIND", "NAME", "CHANGE", "STATUS"], rows)
        );
    }
    for object in &changed.objects {
        if let Some(status) = &object.status {
            explain(status);
        }
    }
    for status in &changed.also {
        outln!(
            "{} {} is {} now",
            status.object.kind,
            name(&status.object),
            status.state
        );
        explain(status);
    }
    match made {
        Made::Yes => outln!("revision {}", changed.revision),
        Made::No => outln!("nothing was changed (--dry-run)"),
    }
    Ok(())
}

fn wait(client: &Client, revision: u64, args: &WaitArgs) -> Result<(), Failure> {
    if !args.wait {
        return Ok(());
    }
    let path = format!(
        "/v1/wait?revision={revision}&timeout_ms={}",
        args.timeout.as_millis()
    );
    let waited: Waited = client.get(&path)?;
    if waited.everywhere {
        let s = if waited.live == 1 { "" } else { "s" };
        errln!("in force on {} sidecar{s}", waited.live);
        return Ok(());
    }
    let laggards = waited
        .laggards
        .iter()
        .map(|laggard| match &laggard.refused {
            Some(why) => format!("{}: refused: {why}", laggard.node),
            None => format!("{}: has not answered", laggard.node),
        });
    Err(Failure {
        status: 1,
        message: format!(
            "revision {revision} is stored, but not in force on {} of {} sidecars \
             (`ringmesh proxy list` shows them)",
            waited.laggards.len(),
            waited.live
        ),
        errors: laggards.collect(),
    })
}

/// Lines of both texts with `-`, `+` or a blank before them, by longest common subsequence.
fn lines_of_diff(before: &str, after: &str) -> Vec<String> {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // The table of the subsequence is quadratic: for texts that large show both whole.
    if a.len().saturating_mul(b.len()) > 4_000_000 {
        let old = a.iter().map(|line| format!("- {line}"));
        return old
            .chain(b.iter().map(|line| format!("+ {line}")))
            .collect();
    }
    let width = b.len() + 1;
    let mut longest = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i] == b[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(format!("  {}", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len()
            || (i < a.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            out.push(format!("- {}", a[i]));
            i += 1;
        } else {
            out.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::lines_of_diff;

    #[test]
    fn a_diff_shows_what_changed_between_what_did_not() {
        let shown = lines_of_diff("a\nb\nc\n", "a\nx\nc\nd\n");
        assert_eq!(shown, ["  a", "- b", "+ x", "  c", "+ d"]);
        assert_eq!(lines_of_diff("", "a\n"), ["+ a"]);
        assert_eq!(lines_of_diff("a\n", ""), ["- a"]);
    }
}
